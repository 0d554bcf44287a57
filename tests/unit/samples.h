/* SPDX-License-Identifier: MIT */
/*
 * For tests: one valid value of every kind, by name. The examples in
 * docs/value-format.md are these; test_value.c compares them.
 */
#ifndef XI_TESTS_SAMPLES_H
#define XI_TESTS_SAMPLES_H

#include "../fuzz/rebuild.h"

static inline void sample_none(xi_builder *b) { (void)xi_put_none(b); }
static inline void sample_true(xi_builder *b) { (void)xi_put_bool(b, true); }
static inline void sample_int32(xi_builder *b) { (void)xi_put_int(b, -2); }
static inline void sample_int64(xi_builder *b) { (void)xi_put_int(b, 1ll << 40); }
static inline void sample_float(xi_builder *b) { (void)xi_put_float(b, -0.5); }
static inline void sample_complex(xi_builder *b) { (void)xi_put_complex(b, 1, -2); }
static inline void sample_bigint(xi_builder *b) { (void)xi_put_bigint(b, "\0\0\0\0\0\0\0\0\1", 9); }
static inline void sample_bigint_negative(xi_builder *b) {
    (void)xi_put_bigint(b, "\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff", 11);
}
static inline void sample_ascii(xi_builder *b) { (void)xi_put_utf8(b, "hello"); }
static inline void sample_empty(xi_builder *b) { (void)xi_put_utf8(b, ""); }
static inline void sample_latin1(xi_builder *b) { (void)xi_put_str(b, XI_LATIN1, 0, "caf\xe9", 4); }
static inline void sample_ucs2(xi_builder *b) {
    (void)xi_put_str(b, XI_UCS2, 0, (const uint16_t[]){0x4e2d, 0x6587}, 4);
}
static inline void sample_ucs4(xi_builder *b) { (void)xi_put_str(b, XI_UCS4, 0, (const uint32_t[]){0x1f600, 'a'}, 8); }
static inline void sample_utf16(xi_builder *b) {
    (void)xi_put_str(b, XI_UTF16, 0, (const uint16_t[]){0xd83d, 0xde00}, 4);
}
static inline void sample_surrogate(xi_builder *b) {
    (void)xi_put_str(b, XI_UCS2, XI_F_SURROGATES, (const uint16_t[]){'a', 0xd800}, 4);
}
static inline void sample_utf8(xi_builder *b) { (void)xi_put_utf8(b, "\xc3\xa9"); }
static inline void sample_bytes(xi_builder *b) { (void)xi_put_bytes(b, "\0\1\2", 3); }
static inline void sample_bytearray(xi_builder *b) {
    void *where;
    if (xi_put_bytes_space(b, XI_F_MUTABLE, 8, &where) == 0 && where)
        memcpy(where, "12345678", 8);
}
static inline void sample_tuple(xi_builder *b) {
    (void)xi_begin(b, XI_TUPLE, 2);
    (void)xi_put_int(b, 1);
    (void)xi_put_utf8(b, "a");
    (void)xi_end(b);
}
static inline void sample_list(xi_builder *b) {
    (void)xi_begin(b, XI_LIST, 2);
    sample_tuple(b);
    (void)xi_begin(b, XI_LIST, 0);
    (void)xi_end(b);
    (void)xi_end(b);
}
static inline void sample_sets(xi_builder *b) {
    (void)xi_begin(b, XI_SET, 2);
    (void)xi_begin(b, XI_FROZENSET, 1);
    (void)xi_put_float(b, 1.5);
    (void)xi_end(b);
    (void)xi_put_none(b);
    (void)xi_end(b);
}
static inline void sample_dict(xi_builder *b) {
    (void)xi_begin(b, XI_DICT, 2);
    (void)xi_put_utf8(b, "key");
    (void)xi_put_int(b, 7);
    (void)xi_put_none(b);
    (void)xi_put_bool(b, false);
    (void)xi_end(b);
}
static inline void sample_date(xi_builder *b) {
    (void)xi_begin_ext(b, XI_EXT_DATE);
    (void)xi_begin(b, XI_TUPLE, 3);
    (void)xi_put_int(b, 2024);
    (void)xi_put_int(b, 2);
    (void)xi_put_int(b, 29);
    (void)xi_end(b);
    (void)xi_end(b);
}
static inline void sample_uuid(xi_builder *b) {
    (void)xi_begin_ext(b, XI_EXT_UUID);
    (void)xi_put_bytes(b, "\x12\x3e\x45\x67\xe8\x9b\x12\xd3\xa4\x56\x42\x66\x14\x17\x40\x00", 16);
    (void)xi_end(b);
}
static inline void sample_buffer(xi_builder *b) {
    (void)xi_put_buffer(b, &(const xi_buffer_ref){{4, 7, 9}, 64, 96}, XI_F_MUTABLE);
}
static inline void sample_ndarray(xi_builder *b) {
    (void)xi_begin_ndarray(b, "<f8", XI_F_FORTRAN, 2, (const int64_t[]){3, 4}, (const int64_t[]){32, -8});
    (void)xi_put_buffer(b, &(const xi_buffer_ref){{4, 7, 9}, 0, 96}, 0);
    (void)xi_end(b);
}
static inline void sample_pickle(xi_builder *b) {
    (void)xi_begin(b, XI_PICKLE, 2);
    (void)xi_put_bytes(b, "\x80\x05N.", 4);
    (void)xi_put_buffer(b, &(const xi_buffer_ref){{2, 1, 3}, 0, 1024}, 0);
    (void)xi_put_bytes(b, "x", 1);
    (void)xi_end(b);
}
static inline void sample_deep(xi_builder *b) {
    for (int i = 0; i < 10; i++)
        (void)xi_begin(b, XI_TUPLE, 1);
    (void)xi_put_none(b);
    for (int i = 0; i < 10; i++)
        (void)xi_end(b);
}

static const struct sample {
    const char *name;
    void (*make)(xi_builder *b);
} samples[] = {
    {"none", sample_none}, {"true", sample_true}, {"int32", sample_int32}, {"int64", sample_int64},
    {"float", sample_float}, {"complex", sample_complex}, {"bigint", sample_bigint},
    {"bigint-negative", sample_bigint_negative}, {"ascii", sample_ascii}, {"empty", sample_empty},
    {"latin1", sample_latin1}, {"ucs2", sample_ucs2}, {"ucs4", sample_ucs4}, {"utf16", sample_utf16},
    {"surrogate", sample_surrogate}, {"utf8", sample_utf8}, {"bytes", sample_bytes}, {"bytearray", sample_bytearray},
    {"tuple", sample_tuple}, {"list", sample_list}, {"sets", sample_sets}, {"dict", sample_dict},
    {"date", sample_date}, {"uuid", sample_uuid}, {"buffer", sample_buffer}, {"ndarray", sample_ndarray},
    {"pickle", sample_pickle}, {"deep", sample_deep},
};
#define SAMPLES (sizeof samples / sizeof samples[0])

#endif
