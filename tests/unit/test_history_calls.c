/* SPDX-License-Identifier: MIT */
/*
 * Who checks the checker's rules for calls: histories made by hand, each with one
 * defect that has to be found, beside the same without it.
 */
#include "history_made.h"

static void called(uint32_t actor, uint64_t value, uint64_t reply, int64_t begin, int64_t end, int result) {
    h_add(h, actor,
          (struct h_event){.kind = H_CALL,
                           .channel = (uint8_t)channel,
                           .value = value,
                           .argument = (int64_t)reply,
                           .begin = begin,
                           .end = end,
                           .timeout = -1,
                           .result = result,
                           .group = H_NO_GROUP});
}
static void served(uint32_t actor, uint64_t value, int64_t begin, int64_t end, int result) {
    about(H_SERVE, actor, group, value, 0, begin, end, result);
}

START_TEST(test_replied) {
    for (int wrong = 0; wrong < 3; wrong++) {
        begin_history();
        sent(P, 1, 10, 20);
        sent(P, 2, 30, 40);
        got(C, P1, 15, 25);
        got(C, P2, 45, 50);
        served(C, P1, wrong == 1 ? 70 : 28, wrong == 1 ? 75 : 35, 0); /* after the caller had its reply? */
        served(C, P2, 55, 60, 0);
        called(P, P1, wrong == 2 ? P2 : P1, 20, 36, 0); /* another's? */
        called(P, P2, P2, 40, 65, 0);
        judge(wrong ? BIT(H_CALLS) : 0);
    }
}
END_TEST

START_TEST(test_died) {
    for (int how = 0; how < 4; how++) {
        begin_history();
        sent(P, 1, 10, 20);
        if (how != 3) got(C, P1, 15, 25); /* nobody took it */
        if (how == 1) killed(C, 30);
        if (how == 2) served(C, P1, 28, 35, 0); /* but it had been replied to */
        called(P, P1, 0, 20, 36, XI_E_DIED);
        judge(how >= 2 ? BIT(H_CALLS) : 0);
    }
    /* Killed while it received, it may have taken the request; before the caller began to wait, too; but not if it was
     * dead before the request was sent, or lived when the caller was told. */
    static const int64_t kills[] = {30, 14, 9, 8, 37};
    for (int i = 0; i < 5; i++) {
        begin_history();
        sent(P, 1, 10, 20);
        about(H_RECEIVE, C, group, 0, 0, 5, H_OPEN, 0);
        killed(C, kills[i]);
        if (kills[i] == 9) h->actor[C].kill_end = 11; /* that is when it was dead */
        called(P, P1, 0, 20, 36, XI_E_DIED);
        judge(kills[i] == 8 || kills[i] == 37 ? BIT(H_CALLS) : 0);
    }
}
END_TEST

START_TEST(test_no_consumer) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history();
        about(H_JOIN, C, group, 0, 0, 1, 5, 0);
        sent(P, 1, 10, 20);
        if (!wrong) killed(C, 21);
        if (wrong) told(C, group, XI_E_AGAIN, 40, 41); /* it was there before, and after */
        called(P, P1, 0, 20, 30, XI_E_NO_CONSUMER);
        judge(wrong ? BIT(H_CALLS) : 0);
    }
    begin_history();
    sent(P, 1, 10, 20);
    got(C, P1, 15, 25);
    served(C, P1, 26, 28, 0);
    called(P, P1, 0, 20, 30, XI_E_NO_CONSUMER);
    judge(BIT(H_CALLS));
}
END_TEST

START_TEST(test_stale) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history();
        sent(P, 1, 10, 20);
        got(C, P1, 15, 25);
        if (wrong) served(C, P1, 26, 28, 0);
        served(C, P1, 50, 55, XI_E_STALE);
        called(P, P1, P1, 20, 30, wrong ? 0 : XI_E_INTR);
        judge(wrong ? BIT(H_CALLS) : 0);
    }
}
END_TEST

START_TEST(test_given_up) {
    for (int replied = 0; replied < 2; replied++) { /* a request that nobody waits for may be skipped; one that is waited for not */
        begin_history();
        h->group[group].drained = true;
        sent(P, 1, 10, 20);
        if (replied) served(C, P1, 22, 25, 0); /* by who never took it */
        called(P, P1, P1, 20, 30, replied ? 0 : XI_E_INTR);
        judge(replied ? BIT(H_LOST) : 0);
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("history_calls");
    TCase *all = tcase_create("all");
    tcase_add_test(all, test_replied);
    tcase_add_test(all, test_died);
    tcase_add_test(all, test_no_consumer);
    tcase_add_test(all, test_stale);
    tcase_add_test(all, test_given_up);
    suite_add_tcase(s, all);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
