/* SPDX-License-Identifier: MIT */
/*
 * Text: what each encoding allows, and what becomes of it as UTF-8.
 *
 * Checks run at every offset within a word and at lengths around the widths
 * that the code takes at once, since that is where such code is wrong.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "xidata.h"

#define LONE XI_F_SURROGATES

static xi_value str_of(enum xi_encoding encoding, uint32_t flags, const void *text, size_t n) {
    xi_value v;
    v.tag = XI_STR;
    v.flags = (uint8_t)((uint32_t)encoding | flags);
    v.data = text;
    v.length = n;
    return v;
}

static void assert_utf8(enum xi_encoding encoding, uint32_t flags, const void *text, size_t n, const char *expected,
                        size_t length) {
    char out[64];
    xi_value v = str_of(encoding, flags, text, n);
    memset(out, 'x', sizeof out);
    ck_assert_int_eq(xi_to_utf8(&v, NULL, 0, true), (int64_t)length);
    ck_assert_int_eq(xi_to_utf8(&v, out, sizeof out, true), (int64_t)length);
    ck_assert_mem_eq(out, expected, length);
    ck_assert_int_eq(out[length], 0);
}

#define GIVES(result, encoding, flags, text)                                                                           \
    ck_assert_int_eq(xi_check_text(encoding, flags, text, sizeof(text)), result)
#define ACCEPTS(encoding, flags, text) GIVES(0, encoding, flags, text)
#define REFUSES(encoding, flags, text) GIVES(XI_E_CORRUPT, encoding, flags, text)
#define UTF8(...) ((const uint8_t[]){__VA_ARGS__})
#define UNITS16(...) ((const uint16_t[]){__VA_ARGS__})
#define UNITS32(...) ((const uint32_t[]){__VA_ARGS__})

START_TEST(ascii_with_one_high_byte_anywhere_is_refused) {
    uint8_t text[200];
    for (size_t offset = 0; offset < 8; offset++) {
        for (size_t n = 0; n < 180; n += n < 24 ? 1 : 7) {
            memset(text, 'a', sizeof text);
            text[offset + n] = 0xff; /* just beyond: must not matter */
            ck_assert_int_eq(xi_check_text(XI_ASCII, 0, text + offset, n), 0);
            text[offset + n] = 'a';
            for (size_t bad = 0; bad < n; bad++) {
                text[offset + bad] = 0x80;
                ck_assert_int_eq(xi_check_text(XI_ASCII, 0, text + offset, n), XI_E_CORRUPT);
                text[offset + bad] = 'a';
            }
        }
    }
}
END_TEST

START_TEST(every_ascii_byte_is_accepted) {
    uint8_t text[128];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)i;
    ACCEPTS(XI_ASCII, 0, text);
    ACCEPTS(XI_UTF8, 0, text);
}
END_TEST

START_TEST(latin1_accepts_every_byte) {
    uint8_t text[256];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)i;
    ACCEPTS(XI_LATIN1, 0, text);
}
END_TEST

START_TEST(an_unknown_encoding_is_refused) {
    ck_assert_int_eq(xi_check_text((enum xi_encoding)6, 0, "a", 1), XI_E_CORRUPT);
    ck_assert_int_eq(xi_check_text((enum xi_encoding)7, 0, "a", 1), XI_E_CORRUPT);
    xi_value v = str_of((enum xi_encoding)6, 0, "a", 1);
    ck_assert_int_eq(xi_to_utf8(&v, NULL, 0, false), XI_E_CORRUPT);
}
END_TEST

START_TEST(half_units_are_refused) {
    uint8_t text[7] = {0};
    ck_assert_int_eq(xi_check_text(XI_UCS2, 0, text, 3), XI_E_CORRUPT);
    ck_assert_int_eq(xi_check_text(XI_UTF16, 0, text, 7), XI_E_CORRUPT);
    for (size_t n = 1; n < 8; n++)
        ck_assert_int_eq(xi_check_text(XI_UCS4, 0, text, n), n == 4 ? 0 : XI_E_CORRUPT);
    xi_value v = str_of(XI_UCS4, 0, text, 6);
    ck_assert_int_eq(xi_to_utf8(&v, NULL, 0, false), XI_E_CORRUPT);
}
END_TEST

START_TEST(empty_text_is_text_in_every_encoding) {
    for (int encoding = XI_ASCII; encoding <= XI_UTF8; encoding++) {
        ck_assert_int_eq(xi_check_text((enum xi_encoding)encoding, 0, "", 0), 0);
        assert_utf8((enum xi_encoding)encoding, 0, "", 0, "", 0);
    }
}
END_TEST

START_TEST(utf8_of_each_length_is_accepted_at_its_edges) {
    ACCEPTS(XI_UTF8, 0, UTF8(0xc2, 0x80));             /* U+0080 */
    ACCEPTS(XI_UTF8, 0, UTF8(0xdf, 0xbf));             /* U+07FF */
    ACCEPTS(XI_UTF8, 0, UTF8(0xe0, 0xa0, 0x80));       /* U+0800 */
    ACCEPTS(XI_UTF8, 0, UTF8(0xed, 0x9f, 0xbf));       /* U+D7FF */
    ACCEPTS(XI_UTF8, 0, UTF8(0xee, 0x80, 0x80));       /* U+E000 */
    ACCEPTS(XI_UTF8, 0, UTF8(0xef, 0xbf, 0xbf));       /* U+FFFF */
    ACCEPTS(XI_UTF8, 0, UTF8(0xf0, 0x90, 0x80, 0x80)); /* U+10000 */
    ACCEPTS(XI_UTF8, 0, UTF8(0xf4, 0x8f, 0xbf, 0xbf)); /* U+10FFFF */
}
END_TEST

START_TEST(utf8_that_is_not_shortest_is_refused) {
    REFUSES(XI_UTF8, 0, UTF8(0xc0, 0x80));
    REFUSES(XI_UTF8, 0, UTF8(0xc1, 0xbf));
    REFUSES(XI_UTF8, 0, UTF8(0xe0, 0x9f, 0xbf));
    REFUSES(XI_UTF8, 0, UTF8(0xf0, 0x8f, 0xbf, 0xbf));
    REFUSES(XI_UTF8, LONE, UTF8(0xc0, 0x80));
}
END_TEST

START_TEST(utf8_beyond_the_last_code_point_is_refused) {
    REFUSES(XI_UTF8, 0, UTF8(0xf4, 0x90, 0x80, 0x80));
    REFUSES(XI_UTF8, 0, UTF8(0xf5, 0x80, 0x80, 0x80));
    REFUSES(XI_UTF8, 0, UTF8(0xf8, 0x88, 0x80, 0x80, 0x80));
    REFUSES(XI_UTF8, 0, UTF8(0xff));
}
END_TEST

START_TEST(utf8_cut_at_any_place_is_refused_without_reading_beyond) {
    static const uint8_t character[4] = {0xf0, 0x9f, 0x98, 0x80};
    static const uint8_t three[3] = {0xe4, 0xb8, 0xad};
    uint8_t *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(page, MAP_FAILED);
    ck_assert_int_eq(mprotect(page + 4096, 4096, PROT_NONE), 0);
    for (size_t before = 0; before < 20; before++) {
        for (size_t n = 1; n < 4; n++) {
            uint8_t *text = page + 4096 - before - n;
            memset(text, 'a', before);
            memcpy(text + before, character, n);
            ck_assert_int_eq(xi_check_text(XI_UTF8, 0, text, before + n), XI_E_CORRUPT);
            memcpy(text + before, three, n);
            ck_assert_int_eq(xi_check_text(XI_UTF8, 0, text, before + n), n == 3 ? 0 : XI_E_CORRUPT);
        }
    }
    munmap(page, 8192);
}
END_TEST

START_TEST(utf8_with_a_wrong_or_stray_continuation_is_refused) {
    REFUSES(XI_UTF8, 0, UTF8(0x80));
    REFUSES(XI_UTF8, 0, UTF8('a', 0xbf, 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a'));
    REFUSES(XI_UTF8, 0, UTF8(0xc3, 0x28));
    REFUSES(XI_UTF8, 0, UTF8(0xe4, 0xb8, 0x28));
    REFUSES(XI_UTF8, 0, UTF8(0xe4, 0x28, 0xad));
    REFUSES(XI_UTF8, 0, UTF8(0xf0, 0x9f, 0x98, 0xc0));
}
END_TEST

START_TEST(surrogates_in_utf8_need_the_flag) {
    REFUSES(XI_UTF8, 0, UTF8(0xed, 0xa0, 0x80)); /* U+D800 */
    REFUSES(XI_UTF8, 0, UTF8(0xed, 0xbf, 0xbf)); /* U+DFFF */
    ACCEPTS(XI_UTF8, LONE, UTF8(0xed, 0xa0, 0x80));
    ACCEPTS(XI_UTF8, LONE, UTF8('a', 0xed, 0xbf, 0xbf));
}
END_TEST

START_TEST(surrogates_in_ucs2_need_the_flag_wherever_they_are) {
    uint16_t text[100];
    for (size_t i = 0; i < 100; i++)
        text[i] = (uint16_t)(0x4e00 + i);
    ACCEPTS(XI_UCS2, 0, text);
    for (size_t i = 0; i < 100; i++) {
        uint16_t was = text[i];
        text[i] = i % 2 ? 0xd800 : 0xdfff;
        REFUSES(XI_UCS2, 0, text);
        ACCEPTS(XI_UCS2, LONE, text);
        text[i] = was;
    }
    ACCEPTS(XI_UCS2, 0, UNITS16(0xd7ff, 0xe000, 0xffff, 0));
}
END_TEST

START_TEST(surrogates_in_ucs4_need_the_flag_and_large_units_are_refused) {
    uint32_t text[100];
    for (size_t i = 0; i < 100; i++)
        text[i] = (uint32_t)(0x1f600 + i);
    ACCEPTS(XI_UCS4, 0, text);
    for (size_t i = 0; i < 100; i++) {
        uint32_t was = text[i];
        text[i] = 0xdabc;
        REFUSES(XI_UCS4, 0, text);
        ACCEPTS(XI_UCS4, LONE, text);
        text[i] = i % 2 ? 0x110000 : 0xffffffff;
        REFUSES(XI_UCS4, 0, text);
        REFUSES(XI_UCS4, LONE, text);
        text[i] = was;
    }
    ACCEPTS(XI_UCS4, 0, UNITS32(0xd7ff, 0xe000, 0x10ffff));
}
END_TEST

START_TEST(utf16_needs_whole_pairs_or_the_flag) {
    ACCEPTS(XI_UTF16, 0, UNITS16('a', 0xd83d, 0xde00, 'b'));
    REFUSES(XI_UTF16, 0, UNITS16(0xd83d));
    REFUSES(XI_UTF16, 0, UNITS16(0xd83d, 'a'));
    REFUSES(XI_UTF16, 0, UNITS16(0xde00, 0xd83d));
    REFUSES(XI_UTF16, 0, UNITS16(0xd83d, 0xd83d, 0xde00));
    ACCEPTS(XI_UTF16, LONE, UNITS16(0xde00, 0xd83d));
}
END_TEST

START_TEST(every_code_point_becomes_its_utf8_from_every_form) {
    static const struct {
        uint32_t code;
        const char *utf8;
    } known[] = {{0x41, "A"}, {0x7f, "\x7f"}, {0x80, "\xc2\x80"}, {0xff, "\xc3\xbf"}, {0x7ff, "\xdf\xbf"},
                 {0x800, "\xe0\xa0\x80"}, {0x4e2d, "\xe4\xb8\xad"}, {0xffff, "\xef\xbf\xbf"},
                 {0x10000, "\xf0\x90\x80\x80"}, {0x1f600, "\xf0\x9f\x98\x80"}, {0x10ffff, "\xf4\x8f\xbf\xbf"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint32_t code = known[i].code;
        size_t length = strlen(known[i].utf8);
        uint16_t pair[2] = {(uint16_t)code, 0};
        if (code > 0xffff)
            pair[0] = (uint16_t)(0xd7c0 + (code >> 10)), pair[1] = (uint16_t)(0xdc00 | (code & 0x3ff));
        assert_utf8(XI_UCS4, 0, &code, 4, known[i].utf8, length);
        assert_utf8(XI_UTF16, 0, pair, code > 0xffff ? 4 : 2, known[i].utf8, length);
        assert_utf8(XI_UTF8, 0, known[i].utf8, length, known[i].utf8, length);
        if (code <= 0xffff)
            assert_utf8(XI_UCS2, 0, pair, 2, known[i].utf8, length);
        if (code <= 0xff)
            assert_utf8(XI_LATIN1, 0, &code, 1, known[i].utf8, length);
        if (code <= 0x7f)
            assert_utf8(XI_ASCII, 0, &code, 1, known[i].utf8, length);
    }
}
END_TEST

START_TEST(runs_of_ascii_between_others_stay_in_place) {
    uint16_t wide[40];
    uint8_t narrow[40], expected[120];
    char out[121];
    for (size_t special = 0; special < 40; special++) {
        size_t n = 0;
        for (size_t i = 0; i < 40; i++) {
            wide[i] = narrow[i] = (uint8_t)('a' + i % 26);
            if (i == special) {
                wide[i] = narrow[i] = 0xe9;
                expected[n++] = 0xc3;
                expected[n++] = 0xa9;
            } else {
                expected[n++] = narrow[i];
            }
        }
        xi_value v[3] = {str_of(XI_LATIN1, 0, narrow, 40), str_of(XI_UCS2, 0, wide, 80), str_of(XI_UTF16, 0, wide, 80)};
        for (size_t i = 0; i < 3; i++) {
            ck_assert_int_eq(xi_to_utf8(&v[i], out, sizeof out, false), 41);
            ck_assert_mem_eq(out, expected, 41);
        }
    }
}
END_TEST

START_TEST(embedded_nul_is_text) {
    assert_utf8(XI_ASCII, 0, "a\0b", 3, "a\0b", 3);
    assert_utf8(XI_UCS2, 0, UNITS16('a', 0, 'b'), 6, "a\0b", 3);
}
END_TEST

START_TEST(lone_surrogates_pass_or_are_refused_as_asked) {
    const struct {
        enum xi_encoding encoding;
        const void *text;
        size_t n;
    } forms[] = {{XI_UCS2, UNITS16('a', 0xd800), 4},
                 {XI_UCS4, UNITS32('a', 0xd800), 8},
                 {XI_UTF16, UNITS16('a', 0xd800), 4},
                 {XI_UTF8, UTF8('a', 0xed, 0xa0, 0x80), 4}};
    char out[8];
    for (size_t i = 0; i < 4; i++) {
        xi_value v = str_of(forms[i].encoding, LONE, forms[i].text, forms[i].n);
        assert_utf8(forms[i].encoding, LONE, forms[i].text, forms[i].n, "a\xed\xa0\x80", 4);
        ck_assert_int_eq(xi_to_utf8(&v, out, sizeof out, XI_TEXT_STRICT), XI_E_RANGE);
        ck_assert_int_eq(xi_to_utf8(&v, NULL, 0, XI_TEXT_REPLACE), 4);
        ck_assert_int_eq(xi_to_utf8(&v, out, sizeof out, XI_TEXT_REPLACE), 4);
        ck_assert_str_eq(out, "a\xef\xbf\xbd");
        ck_assert_int_eq(xi_to_utf8(&v, out, sizeof out, XI_TEXT_REPLACE + 1), XI_E_INVAL);
        v = str_of(forms[i].encoding, 0, forms[i].text, forms[i].n);
        for (unsigned errors = XI_TEXT_STRICT; errors <= XI_TEXT_REPLACE; errors++)
            ck_assert_int_eq(xi_to_utf8(&v, out, sizeof out, errors), XI_E_CORRUPT);
    }
}
END_TEST

START_TEST(a_pair_in_ucs2_is_two_lone_surrogates) {
    assert_utf8(XI_UCS2, LONE, UNITS16(0xd83d, 0xde00), 4, "\xed\xa0\xbd\xed\xb8\x80", 6);
}
END_TEST

START_TEST(replacing_leaves_all_other_text_as_it_is) {
    static const char text[] = "\xed\x9f\xbf\xed\xa0\x80\xed\xbf\xbf\xf0\x9f\x98\x80z";
    static const char want[] = "\xed\x9f\xbf\xef\xbf\xbd\xef\xbf\xbd\xf0\x9f\x98\x80z";
    char out[sizeof text];
    xi_value v = str_of(XI_UTF8, LONE, text, sizeof text - 1);
    ck_assert_int_eq(xi_to_utf8(&v, out, sizeof out, XI_TEXT_REPLACE), (int64_t)sizeof text - 1);
    ck_assert_str_eq(out, want);
    v = str_of(XI_UCS4, LONE, UNITS32(0xd7ff, 0xd800, 0xdfff, 0x1f600, 'z'), 20);
    ck_assert_int_eq(xi_to_utf8(&v, out, sizeof out, XI_TEXT_REPLACE), (int64_t)sizeof text - 1);
    ck_assert_str_eq(out, want);
}
END_TEST

START_TEST(text_that_lies_about_itself_is_corrupt) {
    char out[8];
    xi_value v = str_of(XI_ASCII, 0, "a\xe9", 2);
    ck_assert_int_eq(xi_to_utf8(&v, out, sizeof out, true), XI_E_CORRUPT);
    v = str_of(XI_UTF8, 0, "a\xe9", 2);
    ck_assert_int_eq(xi_to_utf8(&v, out, sizeof out, true), XI_E_CORRUPT);
    v = str_of(XI_UCS4, LONE, UNITS32(0x110000), 4);
    ck_assert_int_eq(xi_to_utf8(&v, out, sizeof out, true), XI_E_CORRUPT);
}
END_TEST

START_TEST(a_value_that_is_no_str_has_no_utf8) {
    xi_value v = str_of(XI_ASCII, 0, "a", 1);
    v.tag = XI_BYTES;
    ck_assert_int_eq(xi_to_utf8(&v, NULL, 0, false), XI_E_TYPE);
}
END_TEST

START_TEST(no_byte_is_written_beyond_the_capacity) {
    uint16_t wide[64];
    uint32_t four[64];
    char out[300];
    for (size_t i = 0; i < 64; i++) {
        wide[i] = (uint16_t)(i % 3 ? 'a' + i % 26 : 0x4e00 + i);
        four[i] = i % 3 ? 0x1f600 + (uint32_t)i : 'b';
    }
    const xi_value v[] = {str_of(XI_UCS2, 0, wide, sizeof wide), str_of(XI_UTF16, 0, wide, sizeof wide),
                          str_of(XI_UCS4, 0, four, sizeof four), str_of(XI_ASCII, 0, "0123456789012345678", 19),
                          str_of(XI_LATIN1, 0, "01234567\xe9", 9), str_of(XI_UTF8, 0, "0123456\xc3\xa9", 9)};
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        int64_t need = xi_to_utf8(&v[i], NULL, 0, false);
        ck_assert_int_gt(need, 0);
        for (size_t capacity = 0; capacity < (size_t)need + 2; capacity++) {
            memset(out, 0x55, sizeof out);
            ck_assert_int_eq(xi_to_utf8(&v[i], out, capacity, false), need);
            for (size_t k = capacity; k < sizeof out; k++)
                ck_assert_int_eq(out[k], 0x55);
            if (capacity > (size_t)need)
                ck_assert_int_eq(out[need], 0);
        }
    }
}
END_TEST

START_TEST(errors_say_which_encoding_was_broken) {
    ck_assert_int_eq(xi_check_text(XI_UTF8, 0, "\xff", 1), XI_E_CORRUPT);
    ck_assert_ptr_nonnull(strstr(xi_error_text(XI_E_CORRUPT), "UTF-8"));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("text");
    TCase *tests = tcase_create("text");
    tcase_add_test(tests, ascii_with_one_high_byte_anywhere_is_refused);
    tcase_add_test(tests, every_ascii_byte_is_accepted);
    tcase_add_test(tests, latin1_accepts_every_byte);
    tcase_add_test(tests, an_unknown_encoding_is_refused);
    tcase_add_test(tests, half_units_are_refused);
    tcase_add_test(tests, empty_text_is_text_in_every_encoding);
    tcase_add_test(tests, utf8_of_each_length_is_accepted_at_its_edges);
    tcase_add_test(tests, utf8_that_is_not_shortest_is_refused);
    tcase_add_test(tests, utf8_beyond_the_last_code_point_is_refused);
    tcase_add_test(tests, utf8_cut_at_any_place_is_refused_without_reading_beyond);
    tcase_add_test(tests, utf8_with_a_wrong_or_stray_continuation_is_refused);
    tcase_add_test(tests, surrogates_in_utf8_need_the_flag);
    tcase_add_test(tests, surrogates_in_ucs2_need_the_flag_wherever_they_are);
    tcase_add_test(tests, surrogates_in_ucs4_need_the_flag_and_large_units_are_refused);
    tcase_add_test(tests, utf16_needs_whole_pairs_or_the_flag);
    tcase_add_test(tests, every_code_point_becomes_its_utf8_from_every_form);
    tcase_add_test(tests, runs_of_ascii_between_others_stay_in_place);
    tcase_add_test(tests, embedded_nul_is_text);
    tcase_add_test(tests, lone_surrogates_pass_or_are_refused_as_asked);
    tcase_add_test(tests, a_pair_in_ucs2_is_two_lone_surrogates);
    tcase_add_test(tests, replacing_leaves_all_other_text_as_it_is);
    tcase_add_test(tests, text_that_lies_about_itself_is_corrupt);
    tcase_add_test(tests, a_value_that_is_no_str_has_no_utf8);
    tcase_add_test(tests, no_byte_is_written_beyond_the_capacity);
    tcase_add_test(tests, errors_say_which_encoding_was_broken);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
