/* SPDX-License-Identifier: MIT */
/*
 * JSON of the command xi: exact both ways, strict, and able to say where a
 * text is wrong. The value's bytes are compared, not only its text, so that a
 * change of kind (an int that became a float) does not pass.
 */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xi/json.h"

/* ---- helpers ---- */

struct encoded {
    void *data;
    size_t size;
};

static struct encoded encode(const char *text) {
    struct json j = {0};
    struct encoded v = {NULL, 0};
    int rc = json_parse(&j, text, strlen(text));
    if (rc == 0) rc = json_encode(&j, &v.data, &v.size);
    ck_assert_msg(rc == 0, "%.200s: %zu:%zu: %s", text, j.error.line, j.error.column, j.error.text);
    ck_assert_msg(xi_validate(v.data, v.size) == 0, "%.200s: %s", text, xi_error_text(xi_validate(v.data, v.size)));
    json_clear(&j);
    return v;
}

/* The caller frees it. */
static char *text_of(const void *value, size_t size) {
    struct json_out o = {0};
    int rc = json_write(&o, value, size, NULL);
    ck_assert_msg(rc == 0, "%s", xi_error_text(rc));
    json_put(&o, "", 1);
    ck_assert_int_eq(o.error, 0);
    return o.data;
}

static void expect_text(const char *text, const char *want) {
    struct encoded v = encode(text);
    char *got = text_of(v.data, v.size);
    ck_assert_str_eq(got, want);
    struct encoded again = encode(got);
    ck_assert_uint_eq(again.size, v.size);
    ck_assert_mem_eq(again.data, v.data, v.size);
    free(again.data);
    free(got);
    free(v.data);
}

/* A native value becomes this text, and the text becomes the same bytes again. */
static void expect_value(xi_builder *b, const char *want) {
    int64_t n = xi_builder_finish(b);
    ck_assert_msg(n > 0, "%s: %s", want, xi_error_text((int)n));
    char *got = text_of(b->buffer, (size_t)n);
    ck_assert_str_eq(got, want);
    struct encoded v = encode(got);
    ck_assert_uint_eq(v.size, (size_t)n);
    ck_assert_mem_eq(v.data, b->buffer, v.size);
    free(v.data);
    free(got);
}

static uint64_t memory[512];
static xi_builder *build(void) {
    static xi_builder b;
    xi_builder_init(&b, memory, sizeof memory, 0);
    return &b;
}

/* ---- texts that come back as they were ---- */

static const char *const same[] = {
    "null", "true", "false", "0", "-1", "2147483647", "-2147483648", "2147483648", "9223372036854775807",
    "-9223372036854775808", "9223372036854775808", "-9223372036854775809", "18446744073709551616",
    "-340282366920938463463374607431768211456", "1.0", "-0.0", "0.1", "1e+22", "1.5e-07", "4.94065645841247e-324",
    "1.7976931348623157e+308", "0.30000000000000004", "\"\"", "\"abc\"", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"",
    "\"\\u0000\\u001f\\\"\\\\\\n\\t\\b\\f\\r\"", "\"\\u007f\\u009f\"", "\"\\ud800\"", "\"x\\udfffy\"", "[]", "{}",
    "[1,[2,[3]],{}]", "{\"a\":1,\"b\":[true,null]}", "{\"$a\":1,\"b\":2}", "{\"\":0}", "{\"$dict\":[[\"$bytes\",1]]}",
    "{\"$dict\":[[1,2],[\"1\",3],[null,4]]}", "{\"$dict\":[[{\"$tuple\":[1,2]},[]]]}", "{\"$bytes\":\"\"}", "{\"$bytes\":\"AA==\"}",
    "{\"$bytes\":\"AAE=\"}", "{\"$bytes\":\"AAEC+/8=\"}", "{\"$bytearray\":\"AAEC\"}", "{\"$tuple\":[]}",
    "{\"$tuple\":[1,{\"$set\":[1,2]},{\"$frozenset\":[\"a\"]}]}", "{\"$complex\":[1.0,-0.0]}",
    "{\"$complex\":[{\"$float\":\"nan\"},{\"$float\":\"-inf\"}]}", "{\"$float\":\"nan\"}", "{\"$float\":\"inf\"}",
    "{\"$float\":\"-inf\"}", "{\"$float\":\"nan:fff8000000000001\"}", "{\"$date\":\"2024-02-29\"}", "{\"$time\":\"23:59:59.000001\"}",
    "{\"$time\":\"00:00:00+05:30\"}", "{\"$datetime\":\"2024-05-01T12:00:00\"}",
    "{\"$datetime\":\"0001-01-01T00:00:00.500000-00:00:01\"}", "{\"$datetime\":\"9999-12-31T23:59:59.999999+00:00\"}",
    "{\"$timedelta\":[-1,86399,999999]}", "{\"$uuid\":\"123e4567-e89b-12d3-a456-426614174000\"}", "{\"$decimal\":\"-1.10E+5\"}",
    "{\"$decimal\":\"sNaN123\"}", "{\"$fraction\":[1,99999999999999999999999999]}", "{\"$interpreter\":7}", "{\"$channel\":\"jobs\"}",
    "{\"$range\":[0,10,3]}", "{\"$named\":[\"app.Point\",{\"$tuple\":[1,2]}]}", "{\"$ext\":[300,{\"a\":1}]}",
    "{\"$ext\":[3,{\"$tuple\":[1,2]}]}", "{\"$pickle\":\"gASVAAAA\"}", "{\"$pickle\":[\"gAU=\",{\"$bytes\":\"AAEC\"},{\"$bytearray\":\"\"}]}",
    "{\"$ndarray\":{\"dtype\":\"<u2\",\"shape\":[2,3],\"data\":\"AAABAAIAAwAEAAUA\"}}",
    "{\"$ndarray\":{\"dtype\":\"<u2\",\"shape\":[2,3],\"order\":\"F\",\"data\":\"AAABAAIAAwAEAAUA\"}}",
    "{\"$ndarray\":{\"dtype\":\"<u2\",\"shape\":[3],\"strides\":[-2],\"mutable\":true,\"data\":\"AAABAAIA\"}}",
    "{\"$ndarray\":{\"dtype\":\"<f8\",\"shape\":[],\"data\":\"AAAAAAAA8D8=\"}}",
    "{\"$ndarray\":{\"dtype\":\"[('a', '<i4')]\",\"shape\":[0],\"strides\":[4],\"data\":\"\"}}",
    "{\"$str\":[\"\\ud83d\",\"\\ude00\"]}", "{\"$str\":[\"a\\ud83d\",\"\\ude00\\ud83d\",\"\\ude00b\"]}",
    "{\"$dict\":[[{\"$str\":[\"\\ud83d\",\"\\ude00\"]},1],[\"b\",2]]}",
};

START_TEST(round_trip) { expect_text(same[_i], same[_i]); }
END_TEST

/* ---- texts that have another, canonical form ---- */

static const struct { const char *text, *canonical; } forms[] = {
    {" [ 1 ,\t2\r\n] ", "[1,2]"},
    {"-0", "0"},
    {"1E2", "100.0"},
    {"1e-7", "1e-07"},
    {"\"\\u0041\\/\\ud83d\\ude00\\u00e9\"", "\"A/\xf0\x9f\x98\x80\xc3\xa9\""},
    {"{\"\\u0024bytes\":\"AA\\u003d=\"}", "{\"$bytes\":\"AA==\"}"},
    {"{\"$bytes\":\"A\\/8=\"}", "{\"$bytes\":\"A/8=\"}"},
    {"{\"$dict\":[[\"a\",1],[\"b\",2]]}", "{\"a\":1,\"b\":2}"},
    {"{\"$dict\":[]}", "{}"},
    {"{\"$int\":\"0xff\"}", "255"},
    {"{\"$int\":\"-0x8000000000000000\"}", "-9223372036854775808"},
    {"{\"$int\":\"-0x8000000000000001\"}", "-9223372036854775809"},
    {"{\"$int\":\"123456789012345678901234567890\"}", "123456789012345678901234567890"},
    {"{\"$str\":[\"a\",\"b\"]}", "\"ab\""},
    {"{\"$complex\":[1,2]}", "{\"$complex\":[1.0,2.0]}"},
    {"{\"$datetime\":\"2024-05-01 12:00:00.5Z\"}", "{\"$datetime\":\"2024-05-01T12:00:00.500000+00:00\"}"},
    {"{\"$ext\":[1,{\"$tuple\":[2024,5,1]}]}", "{\"$date\":\"2024-05-01\"}"},
    {"{\"$ext\":[1,{\"$tuple\":[2023,2,29]}]}", "{\"$ext\":[1,{\"$tuple\":[2023,2,29]}]}"},
    {"{\"$ext\":[3,{\"$tuple\":[2024,10,27,2,30,0,0,1,3600]}]}", "{\"$ext\":[3,{\"$tuple\":[2024,10,27,2,30,0,0,1,3600]}]}"},
    {"{\"$ext\":[6,\"1.5\"]}", "{\"$decimal\":\"1.5\"}"},
    {"{\"$ext\":[6,\"x\"]}", "{\"$ext\":[6,\"x\"]}"},
    {"{\"$pickle\":[\"gAU=\"]}", "{\"$pickle\":\"gAU=\"}"},
    {"{\"$ndarray\":{\"shape\":[2],\"data\":\"AAA=\",\"dtype\":\"|u1\",\"order\":\"C\",\"strides\":[1]}}",
     "{\"$ndarray\":{\"dtype\":\"|u1\",\"shape\":[2],\"data\":\"AAA=\"}}"},
};

START_TEST(canonical) { expect_text(forms[_i].text, forms[_i].canonical); }
END_TEST

/* ---- texts that are refused, where, and what the message says ---- */

static const struct { const char *text; size_t line, column; const char *says; } wrong[] = {
    {"", 1, 1, "expected a value, found the end"},
    {"  ", 1, 3, "the end"},
    {"[1,]", 1, 4, "expected a value"},
    {"[1 2]", 1, 4, "expected ',' or ']'"},
    {"[1", 1, 3, "found the end"},
    {"{\"a\" 1}", 1, 6, "expected ':'"},
    {"{\"a\":1,}", 1, 8, "a key in double quotes"},
    {"{1:2}", 1, 2, "$dict"},
    {"{\"a\":1 \"b\":2}", 1, 8, "',' or '}'"},
    {"[\n 1,\n  x]", 3, 3, "expected a value"},
    {"\"\xc3\xa9\" x", 1, 5, "the end of the text"},
    {"1 2", 1, 3, "the end of the text"},
    {"01", 1, 2, "leading zeros"},
    {"+1", 1, 1, "no plus sign"},
    {".5", 1, 1, "before its decimal point"},
    {"1.", 1, 3, "after the decimal point"},
    {"1e", 1, 3, "exponent"},
    {"-", 1, 2, "after the minus"},
    {"NaN", 1, 1, "$float"},
    {"-Infinity", 1, 2, "$float"},
    {"None", 1, 1, "null"},
    {"True", 1, 1, "true"},
    {"tru", 1, 1, "true"},
    {"'a'", 1, 1, "double quotes"},
    {"hello", 1, 1, "--text"},
    {"\"abc", 1, 5, "ends the string"},
    {"\"a\nb\"", 1, 3, "control character"},
    {"\"\\x\"", 1, 3, "after a backslash"},
    {"\"\\u12g4\"", 1, 6, "hexadecimal"},
    {"\"\xff\"", 1, 2, "UTF-8"},
    {"\"\xc0\x80\"", 1, 2, "UTF-8"},
    {"\"\xed\xa0\x80\"", 1, 2, "UTF-8"},
    {"\"\xf4\x90\x80\x80\"", 1, 2, "UTF-8"},
    {"1e999", 1, 1, "larger than any float"},
    {"[1, 1e-999]", 1, 5, "smaller than any float"},
    {"{\"a\":1,\"b\":2,\"\\u0061\":3}", 1, 15, "same key twice"},
    {"{\"$dict\":[[1,2],[1,3]]}", 1, 18, "same key twice"},
    {"{\"$set\":[1,2,1]}", 1, 14, "same element twice"},
    {"{\"$nope\":1}", 1, 3, "there is no tag \"$nope\""},
    {"{\"$bytes\":\"A\"}", 1, 12, "multiple of 4"},
    {"{\"$bytes\":\"AB==\"}", 1, 12, "beyond the last byte"},
    {"{\"$bytes\":\"A=AA\"}", 1, 13, "expected base64"},
    {"{\"$bytes\":\"A AA\"}", 1, 13, "expected base64"},
    {"{\"$bytes\":5}", 1, 11, "string of base64"},
    {"{\"$buffer\":\"AAAA\"}", 1, 13, "a channel"},
    {"{\"$tuple\":1}", 1, 11, "an array"},
    {"{\"$dict\":[1]}", 1, 11, "[key, value]"},
    {"{\"$complex\":[1]}", 1, 13, "[real, imaginary]"},
    {"{\"$complex\":[9007199254740993,0]}", 1, 13, "[real, imaginary]"},
    {"{\"$float\":\"nan:7ff0000000000000\"}", 1, 12, "hexadecimal digits"},
    {"{\"$float\":1}", 1, 11, "\"nan\""},
    {"{\"$int\":\"0x\"}", 1, 10, "digits"},
    {"{\"$int\":\"12a\"}", 1, 10, "digits"},
    {"{\"$date\":\"2023-02-29\"}", 1, 11, "a date"},
    {"{\"$time\":\"24:00:00\"}", 1, 11, "a time"},
    {"{\"$datetime\":\"2024-01-01T00:00:00+24:00\"}", 1, 15, "such as"},
    {"{\"$timedelta\":[1,2]}", 1, 15, "three integers"},
    {"{\"$fraction\":[1,2.0]}", 1, 14, "two integers"},
    {"{\"$uuid\":\"123e4567e89b12d3a456426614174000\"}", 1, 11, "a UUID"},
    {"{\"$decimal\":\"1,5\"}", 1, 14, "a decimal number"},
    {"{\"$ext\":[70000,1]}", 1, 9, "65535"},
    {"{\"$ext\":[0,1]}", 1, 9, ""},
    {"{\"$named\":[1,2]}", 1, 11, "[name, value]"},
    {"{\"$pickle\":[]}", 1, 12, "base64"},
    {"{\"$pickle\":[\"AAAA\",1]}", 1, 20, "buffers"},
    {"{\"$ndarray\":{\"dtype\":\"<f8\",\"shape\":[2]}}", 1, 13, "at least"},
    {"{\"$ndarray\":{\"dtype\":\"<f8\",\"shape\":[2],\"data\":\"AAAA\"}}", 1, 13, "do not fill"},
    {"{\"$ndarray\":{\"dtype\":\"<f8\",\"shape\":[-1],\"data\":\"AAAA\"}}", 1, 13, "negative"},
    {"{\"$ndarray\":{\"what\":1}}", 1, 15, "each once"},
};

START_TEST(refused) {
    struct json j = {0};
    struct encoded v = {NULL, 0};
    int rc = json_parse(&j, wrong[_i].text, strlen(wrong[_i].text));
    if (rc == 0) rc = json_encode(&j, &v.data, &v.size);
    ck_assert_msg(rc < 0, "%s was accepted", wrong[_i].text);
    ck_assert_msg(j.error.line == wrong[_i].line && j.error.column == wrong[_i].column, "%s: %zu:%zu: %s", wrong[_i].text,
                  j.error.line, j.error.column, j.error.text);
    ck_assert_msg(strstr(j.error.text, wrong[_i].says) != NULL, "%s: %s", wrong[_i].text, j.error.text);
    json_clear(&j);
}
END_TEST

/* ---- native values ---- */

START_TEST(native_scalars) {
    xi_builder *b = build();
    xi_put_int(b, INT64_MIN);
    expect_value(b, "-9223372036854775808");
    b = build();
    xi_put_float(b, DBL_MIN);
    expect_value(b, "2.2250738585072014e-308");
    b = build();
    xi_put_bigint(b, "\0\0\0\0\0\0\0\0\1", 9);
    expect_value(b, "18446744073709551616");
    b = build();
    xi_put_bigint(b, "\xff\xff\xff\xff\xff\xff\xff\xff\xfe", 9);
    expect_value(b, "-18446744073709551617");
}
END_TEST

/* Every encoding of the same text is the same JSON. */
START_TEST(encodings) {
    static const uint16_t two[] = {'a', 0xe9, 0x20ac};
    static const uint32_t four[] = {0x1f600, 'a'};
    static const uint16_t pair[] = {0xd83d, 0xde00, 'a'};
    static const struct { enum xi_encoding enc; uint32_t flags; const void *text; size_t n; const char *want; } t[] = {
        {XI_LATIN1, 0, "a\xe9", 2, "\"a\xc3\xa9\""},
        {XI_UCS2, 0, two, sizeof two, "\"a\xc3\xa9\xe2\x82\xac\""},
        {XI_UCS4, 0, four, sizeof four, "\"\xf0\x9f\x98\x80" "a\""},
        {XI_UTF16, XI_F_SURROGATES, pair, sizeof pair, "\"\xf0\x9f\x98\x80" "a\""},
        {XI_UCS2, XI_F_SURROGATES, pair, sizeof pair, "{\"$str\":[\"\\ud83d\",\"\\ude00a\"]}"},
        {XI_UTF8, 0, "\xe2\x82\xac", 3, "\"\xe2\x82\xac\""},
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        xi_builder *b = build();
        xi_put_str(b, t[i].enc, t[i].flags, t[i].text, t[i].n);
        int64_t n = xi_builder_finish(b);
        ck_assert_int_gt(n, 0);
        char *got = text_of(memory, (size_t)n);
        ck_assert_str_eq(got, t[i].want);
        free(got);
    }
}
END_TEST

/* What the writer calls corrupt leaves the output as it was. */
START_TEST(corrupt_values) {
    struct json_out o = {0};
    json_puts(&o, "kept");
    for (size_t size = 0; size <= 64; size += 8) {
        memset(memory, 0xee, sizeof memory);
        ck_assert_int_lt(json_write(&o, memory, size, NULL), 0);
        ck_assert_uint_eq(o.length, 4);
    }
    xi_builder *b = build();
    xi_begin(b, XI_LIST, 1);
    xi_put_str(b, XI_UTF8, 0, "\xff\xfe", 2);
    xi_end(b);
    ck_assert_int_eq(json_write(&o, memory, (size_t)xi_builder_finish(b), NULL), XI_E_CORRUPT);
    ck_assert_uint_eq(o.length, 4);
    json_out_clear(&o);
}
END_TEST

static int find_here(void *context, const xi_buffer_ref *ref, const void **data) {
    if (ref->block.segment != 4 || ref->length > 6) return XI_E_NOENT;
    *data = (const char *)context + ref->offset;
    return 0;
}
static int place_here(void *context, size_t size, void **data, xi_buffer_ref *ref) {
    *ref = (xi_buffer_ref){{4, 1, 9}, 2, size};
    *data = (char *)context + 2;
    return 0;
}

START_TEST(buffers) {
    char block[16] = "..abcdef", made[16] = {0};
    struct json_buffers find = {find_here, block};
    struct json_place place = {place_here, made};
    xi_builder *b = build();
    xi_buffer_ref ref = {{4, 1, 9}, 2, 6};
    xi_put_buffer(b, &ref, XI_F_MUTABLE);
    size_t n = (size_t)xi_builder_finish(b);
    struct json_out o = {0};
    ck_assert_int_lt(json_write(&o, memory, n, NULL), 0);
    ck_assert_int_eq(json_write(&o, memory, n, &find), 0);
    json_put(&o, "", 1);
    ck_assert_str_eq(o.data, "{\"$mutable_buffer\":\"YWJjZGVm\"}");
    struct json j = {0};
    ck_assert_int_eq(json_parse(&j, o.data, o.length - 1), 0);
    uint64_t again[64];
    xi_builder c;
    xi_builder_init(&c, NULL, 0, 0);
    ck_assert_int_eq(json_build(&j, &c, &place), 0);
    ck_assert_uint_eq(j.buffers, 1);
    xi_builder_init(&c, again, sizeof again, 0);
    ck_assert_int_eq(json_build(&j, &c, &place), 0);
    ck_assert_uint_eq(j.buffers, 1);
    ck_assert_int_eq(xi_builder_finish(&c), (int64_t)n);
    ck_assert_mem_eq(again, memory, n);
    ck_assert_mem_eq(made, "\0\0abcdef", 8);
    json_clear(&j);
    json_out_clear(&o);
}
END_TEST

/* ---- sizes ---- */

static char *repeat(const char *before, const char *middle, const char *after, size_t n) {
    size_t a = strlen(before), m = strlen(middle), z = strlen(after);
    char *text = malloc(n * (a + z) + m + 1), *p = text;
    for (size_t i = 0; i < n; i++) p = mempcpy(p, before, a);
    p = mempcpy(p, middle, m);
    for (size_t i = 0; i < n; i++) p = mempcpy(p, after, z);
    *p = 0;
    return text;
}

START_TEST(depth) {
    static const char *const form[][2] = {{"[", "]"}, {"{\"$tuple\":[", "]}"}, {"{\"$dict\":[[0,", "]]}"}, {"{\"a\":", "}"}};
    for (size_t f = 0; f < sizeof form / sizeof form[0]; f++) {
        char *deep = repeat(form[f][0], "1", form[f][1], XI_DEPTH_MAX);
        expect_text(deep, deep);
        free(deep);
        deep = repeat(form[f][0], "1", form[f][1], XI_DEPTH_MAX + 1);
        struct json j = {0};
        void *value;
        size_t size;
        ck_assert_int_eq(json_parse(&j, deep, strlen(deep)), 0);
        ck_assert_int_eq(json_encode(&j, &value, &size), XI_E_DEPTH);
        ck_assert_ptr_nonnull(strstr(j.error.text, "256"));
        json_clear(&j);
        free(deep);
    }
    char *hostile = repeat("[", "", "", 100000);
    struct json j = {0};
    ck_assert_int_eq(json_parse(&j, hostile, strlen(hostile)), XI_E_DEPTH);
    json_clear(&j);
    free(hostile);
}
END_TEST

START_TEST(big_integers) {
    for (size_t digits = 15; digits < 400; digits++) {
        char text[402];
        unsigned seed = (unsigned)digits;
        text[0] = digits % 2 ? '-' : '1';
        text[1] = (char)('1' + rand_r(&seed) % 9);
        for (size_t i = 2; i < digits; i++) text[i] = (char)('0' + (digits % 7 ? rand_r(&seed) % 10 : 0));
        text[digits] = 0;
        expect_text(text, text);
    }
    char *most = repeat("9", "", "", 96000);
    expect_text(most, most);
    free(most);
    char *more = repeat("9", "", "", JSON_DIGITS_MAX + 1);
    struct json j = {0};
    void *value;
    size_t size;
    ck_assert_int_eq(json_parse(&j, more, strlen(more)), 0);
    ck_assert_int_eq(json_encode(&j, &value, &size), XI_E_TOOBIG);
    ck_assert_ptr_nonnull(strstr(j.error.text, "$int"));
    json_clear(&j);
    free(more);
    char *ones = repeat("f0", "", "", 60000), *hexadecimal = NULL;
    ck_assert_int_gt(asprintf(&hexadecimal, "{\"$int\":\"-0x%s\"}", ones), 0);
    expect_text(hexadecimal, hexadecimal);
    free(hexadecimal);
    free(ones);
}
END_TEST

/* Any float, whatever its bits, is the same float afterwards. */
START_TEST(any_float) {
    unsigned seed = 7;
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = 0;
        for (int k = 0; k < 4; k++) bits = bits << 16 | ((unsigned)rand_r(&seed) & 0xffff);
        double v;
        memcpy(&v, &bits, sizeof v);
        xi_builder *b = build();
        xi_put_float(b, v);
        char *text = text_of(memory, (size_t)xi_builder_finish(b));
        struct encoded e = encode(text);
        ck_assert_msg(e.size == b->length && memcmp(e.data, memory, e.size) == 0, "%016llx became %s",
                      (unsigned long long)bits, text);
        free(e.data);
        free(text);
    }
}
END_TEST

START_TEST(wide_objects) {
    struct json_out o = {0};
    json_puts(&o, "{");
    for (int i = 0; i < 50000; i++) json_printf(&o, "%s\"key %d\":%d", i ? "," : "", i, i);
    size_t at = o.length;
    json_puts(&o, "}");
    json_put(&o, "", 1);
    expect_text(o.data, o.data);
    o.length = at;
    json_puts(&o, ",\"key 7\":0}");
    json_put(&o, "", 1);
    struct json j = {0};
    void *value;
    size_t size;
    ck_assert_int_eq(json_parse(&j, o.data, o.length - 1), 0);
    ck_assert_int_eq(json_encode(&j, &value, &size), XI_E_INVAL);
    ck_assert_ptr_nonnull(strstr(j.error.text, "twice"));
    ck_assert_uint_eq(j.error.column, at + 3);
    json_clear(&j);
    json_out_clear(&o);
}
END_TEST

/* Numbers cost what they are long, wherever in a long text they stand: the time limit is what is tested. */
START_TEST(many_floats) {
    struct json_out o = {0};
    json_puts(&o, "[0.0");
    for (int i = 0; i < 300000; i++) json_puts(&o, i % 2 ? ",0.0" : ",1.5");
    json_puts(&o, "]");
    json_put(&o, "", 1);
    expect_text(o.data, o.data);
    json_out_clear(&o);
}
END_TEST

/* A text cut anywhere is refused, never read beyond its end. */
START_TEST(cut_anywhere) {
    static const char text[] = "{\"a\":[1,-2.5e3,\"\\u00e9\\ud83d\\ude00\",{\"$bytes\":\"AAEC\"},null,true],\"b\":{}}";
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char *cut = malloc(n + 1); /* exactly as long, so that a sanitizer sees one byte too many */
        memcpy(cut, text, n);
        cut[n] = 0;
        struct json j = {0};
        ck_assert_int_lt(json_parse(&j, cut, n), 0);
        json_clear(&j);
        free(cut);
    }
}
END_TEST

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

int main(void) {
    Suite *suite = suite_create("json");
    TCase *texts = tcase_create("texts"), *values = tcase_create("values"), *sizes = tcase_create("sizes");
    tcase_add_loop_test(texts, round_trip, 0, COUNT(same));
    tcase_add_loop_test(texts, canonical, 0, COUNT(forms));
    tcase_add_loop_test(texts, refused, 0, COUNT(wrong));
    tcase_add_test(texts, cut_anywhere);
    tcase_add_test(values, native_scalars);
    tcase_add_test(values, encodings);
    tcase_add_test(values, corrupt_values);
    tcase_add_test(values, buffers);
    tcase_add_test(values, any_float);
    tcase_add_test(sizes, depth);
    tcase_add_test(sizes, big_integers);
    tcase_add_test(sizes, wide_objects);
    tcase_add_test(sizes, many_floats);
    tcase_set_timeout(sizes, 30);
    suite_add_tcase(suite, texts);
    suite_add_tcase(suite, values);
    suite_add_tcase(suite, sizes);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
