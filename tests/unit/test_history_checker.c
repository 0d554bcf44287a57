/* SPDX-License-Identifier: MIT */
/*
 * Who checks the checker? Histories made by hand, each with one defect that has
 * to be found, beside the same without it, which has to pass. test_history_random.c
 * makes many more.
 */
#include "history_made.h"

/* ------------------------------------------------------------- defects, one by one */

START_TEST(test_right) {
    begin_history();
    sent(P, 1, 10, 20);
    sent(P, 2, 30, 40);
    sent(Q, 1, 12, 35);
    got(C, P1, 15, 25); /* while its send was under way */
    got(D, Q1, 5, 50);
    got(C, P2, 45, 60);
    closed(P, 70, 80);
    told(C, group, XI_E_CLOSED, 65, 90);
    told(D, group, XI_E_CLOSED, 95, 100);
    judge(0);
    begin_history();
    judge(0); /* nothing happened */
}
END_TEST

START_TEST(test_lost) {
    for (int lose = 0; lose < 2; lose++) { /* drained */
        begin_history();
        sent(P, 1, 10, 20);
        sent(P, 2, 30, 40);
        got(C, P1, 15, 25);
        if (!lose) got(C, P2, 45, 60);
        closed(P, 70, 80);
        told(C, group, XI_E_CLOSED, 65, 90);
        judge(lose ? BIT(H_LOST) : 0);
    }
    for (int lose = 0; lose < 3; lose++) { /* or passed by, as intervals or as the producer's order tell */
        begin_history();
        sent(P, 1, 10, 20);
        sent(lose == 1 ? Q : P, lose == 1 ? 1 : 2, 30, 40);
        sent(P, 3, lose == 2 ? 30 : 50, lose == 2 ? 40 : 60); /* one batch with number 2 */
        got(C, P1, 15, 25);
        if (!lose) got(C, P2, 45, 60);
        got(C, P3, 65, 70);
        judge(lose ? BIT(H_LOST) : 0);
    }
    begin_history(); /* what is only not received yet is not lost */
    sent(P, 1, 10, 20);
    sent(P, 2, 30, 40);
    got(C, P1, 15, 25);
    judge(0);
    begin_history(); /* but it is, where the run has seen the group empty */
    h->group[group].drained = true;
    sent(P, 1, 10, 20);
    judge(BIT(H_LOST));
}
END_TEST

START_TEST(test_group_missed) {
    for (int miss = 0; miss < 2; miss++) {
        begin_history();
        uint32_t other = h_add_group(h, channel, "others");
        about(H_JOIN, D, other, 0, 0, 1, 5, 0);
        sent(P, 1, 10, 20);
        got(C, P1, 25, 30);
        if (!miss) got_for(other, D, P1, 25, 40);
        closed(P, 70, 80);
        told(C, group, XI_E_CLOSED, 65, 90);
        told(D, other, XI_E_CLOSED, 65, 90);
        judge(miss ? BIT(H_LOST) : 0);
    }
    begin_history(); /* a group that began while it was sent may have it or not */
    uint32_t other = h_add_group(h, channel, "others");
    about(H_JOIN, D, other, 0, 0, 15, 25, 0);
    sent(P, 1, 10, 20);
    got(C, P1, 25, 30);
    closed(P, 70, 80);
    told(D, other, XI_E_CLOSED, 65, 90);
    judge(0);
}
END_TEST

START_TEST(test_before_join) {
    for (int late = 0; late < 2; late++) {
        begin_history();
        uint32_t other = h_add_group(h, channel, "others");
        sent(P, 1, 10, 20);
        about(H_JOIN, D, other, 0, 0, late ? 21 : 19, 30, 0);
        got_for(other, D, P1, 35, 40);
        judge(late ? BIT(H_BEFORE_JOIN) : 0);
    }
}
END_TEST

/* Three values, then a group that begins with what is there while another group has received one of them. */
static uint32_t begin_late(uint32_t from, uint32_t last) {
    begin_history();
    uint32_t other = h_add_group(h, channel, "others");
    h->group[other].from = from;
    h->group[other].last = last;
    h->group[other].drained = true;
    sent(P, 1, 10, 20);
    sent(P, 2, 30, 40);
    sent(P, 3, 50, 60);
    got(C, P1, 65, 66);
    about(H_JOIN, D, other, 0, 0, 70, 80, 0);
    got(C, P2, 85, 90);
    got(C, P3, 95, 99);
    return other;
}

START_TEST(test_from_oldest) {
    for (int lose = 0; lose < 2; lose++) {
        uint32_t other = begin_late(XI_FROM_OLDEST, 0);
        if (!lose) got_for(other, D, P2, 100, 110);
        got_for(other, D, P3, 120, 130);
        judge(lose ? BIT(H_LOST) : 0);
    }
    uint32_t other = begin_late(XI_FROM_OLDEST, 0); /* what all had received may still be there or not */
    got_for(other, D, P1, 100, 110);
    got_for(other, D, P2, 100, 110);
    got_for(other, D, P3, 120, 130);
    judge(0);
}
END_TEST

START_TEST(test_from_last) {
    for (int wrong = 0; wrong < 3; wrong++) {
        uint32_t other = begin_late(XI_FROM_LAST, 1);
        if (wrong == 1) got_for(other, D, P2, 100, 110);
        if (wrong != 2) got_for(other, D, P3, 120, 130);
        judge(wrong == 1 ? BIT(H_BEFORE_JOIN) : wrong == 2 ? BIT(H_LOST) : 0);
    }
}
END_TEST

START_TEST(test_retained) {
    for (uint32_t kept = 0; kept < 4; kept++) { /* two are received; the channel keeps that many */
        begin_history();
        uint32_t other = h_add_group(h, channel, "others");
        h->channel[channel].retain = kept;
        h->group[other].from = XI_FROM_OLDEST;
        h->group[other].drained = true;
        for (uint64_t n = 1; n < 4; n++) {
            sent(P, n, (int64_t)n * 10, (int64_t)n * 10 + 5);
            got(C, H_ID(P, n), (int64_t)n * 10 + 6, (int64_t)n * 10 + 9);
        }
        about(H_JOIN, D, other, 0, 0, 70, 80, 0);
        got_for(other, D, P2, 100, 110);
        got_for(other, D, P3, 120, 130);
        judge(kept == 3 ? BIT(H_LOST) : 0);
    }
}
END_TEST

START_TEST(test_twice) {
    begin_history();
    sent(P, 1, 10, 20);
    got(C, P1, 15, 25);
    got(D, P1, 15, 25);
    judge(BIT(H_TWICE));
    begin_history(); /* once in each of two groups */
    uint32_t other = h_add_group(h, channel, "others");
    h->group[other].from_start = true;
    sent(P, 1, 10, 20);
    got(C, P1, 15, 25);
    got_for(other, D, P1, 15, 25);
    judge(0);
}
END_TEST

START_TEST(test_phantom) {
    begin_history();
    sent(P, 1, 10, 20);
    got(C, P1, 15, 25);
    got(C, P2, 30, 40);
    judge(BIT(H_PHANTOM));
    begin_history(); /* sent, but on another channel */
    uint32_t elsewhere = h_add_channel(h, "elsewhere");
    sent_to(elsewhere, P, 1, 10, 20, 0);
    got(C, P1, 15, 25);
    judge(BIT(H_PHANTOM));
}
END_TEST

START_TEST(test_failed) {
    static const int results[] = {XI_E_AGAIN, XI_E_TIMEOUT, XI_E_CLOSED, XI_E_INTR};
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        for (int received = 0; received < 2; received++) {
            begin_history();
            closed(Q, 1, 5);
            h_add(h, P,
                  (struct h_event){.kind = H_SEND,
                                   .value = P1,
                                   .begin = 10,
                                   .end = 20,
                                   .timeout = 7,
                                   .result = results[i],
                                   .group = H_NO_GROUP});
            if (received) got(C, P1, 15, 25);
            judge(received ? BIT(H_FAILED) : 0);
        }
}
END_TEST

START_TEST(test_too_soon) {
    for (int soon = 0; soon < 2; soon++) {
        begin_history();
        sent(P, 1, 10, 20);
        got(C, P1, 3, soon ? 9 : 11);
        judge(soon ? BIT(H_TOO_SOON) : 0);
    }
}
END_TEST

START_TEST(test_order_of_producer) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history(); /* one batch, one receive: times tell nothing */
        sent(P, 1, 10, 20);
        sent(P, 2, 10, 20);
        got(C, wrong ? P2 : P1, 30, 40);
        got(C, wrong ? P1 : P2, 30, 40);
        judge(wrong ? BIT(H_ORDER) : 0);
    }
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history(); /* two consumers: only times tell */
        sent(P, 1, 10, 20);
        sent(P, 2, 10, 20);
        got(C, P2, 30, 40);
        got(D, P1, wrong ? 41 : 39, 50);
        judge(wrong ? BIT(H_ORDER) : 0);
    }
}
END_TEST

START_TEST(test_order_by_intervals) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history();
        sent(P, 1, 10, 20);
        sent(Q, 1, wrong ? 21 : 19, 30);
        got(C, Q1, 35, 40);
        got(D, P1, 45, 50);
        judge(wrong ? BIT(H_ORDER) : 0);
    }
    begin_history(); /* one consumer, one call */
    sent(P, 1, 10, 20);
    sent(Q, 1, 21, 30);
    got(C, Q1, 35, 40);
    got(C, P1, 35, 40);
    judge(BIT(H_ORDER));
}
END_TEST

START_TEST(test_order_among_groups) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history(); /* sends overlap, but all groups have to agree */
        uint32_t other = h_add_group(h, channel, "others");
        h->group[other].from_start = true;
        sent(P, 1, 10, 20);
        sent(Q, 1, 10, 20);
        got(C, Q1, 35, 40);
        got(C, P1, 45, 50);
        got_for(other, D, wrong ? P1 : Q1, 35, 40);
        got_for(other, D, wrong ? Q1 : P1, 45, 50);
        judge(wrong ? BIT(H_ORDER) : 0);
    }
}
END_TEST

/* p1 before q1 by the sends, q1 before q2 by its producer, q2 before p1 by the group, no two of which disagree. */
START_TEST(test_order_in_a_circle) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history();
        sent(P, 1, 10, 20);
        sent(Q, 1, 21, 70);
        sent(Q, 2, 21, 70);
        got(C, Q2, 22, 40);
        got(D, P1, wrong ? 41 : 39, 80);
        got(6, Q1, 15, 90);
        judge(wrong ? BIT(H_ORDER) : 0);
    }
}
END_TEST

START_TEST(test_closed) {
    begin_history();
    closed(P, 10, 20);
    sent(Q, 1, 21, 30);
    got(C, Q1, 25, 40);
    judge(BIT(H_AFTER_END));
    begin_history(); /* a send that began earlier may succeed */
    closed(P, 10, 20);
    sent(Q, 1, 15, 30);
    got(C, Q1, 25, 40);
    judge(0);
    begin_history();
    told(C, group, XI_E_CLOSED, 1, 9);
    closed(P, 10, 20);
    judge(BIT(H_CLOSED_EARLY));
    begin_history(); /* received after another consumer had been told that all was */
    sent(P, 1, 1, 5);
    closed(P, 10, 20);
    told(C, group, XI_E_CLOSED, 12, 25);
    got(D, P1, 30, 40);
    judge(BIT(H_AFTER_END));
}
END_TEST

START_TEST(test_not_empty) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history();
        sent(P, 1, 10, 20);
        told(C, group, XI_E_AGAIN, wrong ? 21 : 19, 30);
        got(D, P1, 31, 40);
        judge(wrong ? BIT(H_NOT_EMPTY) : 0);
    }
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history(); /* no single value was there all the time, but always one of them */
        sent(P, 1, 10, 20);
        sent(Q, 1, 10, wrong ? 33 : 36);
        told(C, group, XI_E_AGAIN, 25, 50);
        got(D, P1, 35, 40);
        got(6, Q1, 51, 60);
        judge(wrong ? BIT(H_NOT_EMPTY) : 0);
    }
}
END_TEST

START_TEST(test_timed_out_early) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history();
        h_add(h, C,
              (struct h_event){.kind = H_RECEIVE,
                               .group = (uint16_t)group,
                               .begin = 10,
                               .end = wrong ? 59 : 60,
                               .timeout = 50,
                               .result = XI_E_TIMEOUT});
        judge(wrong ? BIT(H_TIMED_OUT_EARLY) : 0);
    }
}
END_TEST

START_TEST(test_slept) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history();
        h->patience = 100;
        sent(P, 1, 10, 20);
        sent(P, 2, 30, 40);
        got(C, P1, 5, wrong ? 150 : 110);
        got(D, P2, 155, 160);
        judge(wrong ? BIT(H_SLEPT) : 0);
    }
}
END_TEST

START_TEST(test_slept_on_its_value) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history();
        h->patience = 100;
        sent(P, 1, 10, 20);
        got(C, P1, 5, wrong ? 120 : 119);
        judge(wrong ? BIT(H_SLEPT) : 0);
    }
}
END_TEST

START_TEST(test_send_slept) {
    for (int wrong = 0; wrong < 3; wrong++) {
        begin_history();
        uint32_t other = h_add_group(h, channel, "others");
        h->group[other].from_start = true;
        h->patience = 100;
        sent(P, 1, 10, 300); /* too long for this value to have been there: it says nothing */
        told(C, group, XI_E_AGAIN, 20, wrong ? 290 : 110);
        told(D, other, XI_E_AGAIN, wrong == 2 ? 200 : 30, 295);
        judge(wrong == 1 ? BIT(H_SLEPT) : 0);
    }
}
END_TEST

START_TEST(test_bound) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history();
        h->channel[channel].values = 2;
        sent(P, 1, 10, 20);
        sent(P, 2, 30, 40);
        sent(P, 3, 50, 60);
        got(C, P1, wrong ? 61 : 59, 70);
        got(C, P2, 75, 80);
        got(C, P3, 85, 90);
        judge(wrong ? BIT(H_BOUND) : 0);
    }
}
END_TEST

START_TEST(test_dropped) {
    for (int counted = 0; counted < 3; counted++) { /* two are missing */
        begin_history();
        h->group[group].counted = true;
        h->group[group].dropped = (uint64_t)counted + 1;
        h->group[group].drained = true;
        sent(P, 1, 10, 20);
        sent(P, 2, 30, 40);
        sent(P, 3, 50, 60);
        got(C, P3, 85, 90);
        judge(counted == 0 ? BIT(H_LOST) : counted == 2 ? BIT(H_COUNTERS) : 0);
    }
}
END_TEST

static void sent_to_live(uint64_t number, int64_t begin, int64_t end, int64_t ttl) {
    h_add(h, P,
          (struct h_event){.kind = H_SEND,
                           .value = H_ID(P, number),
                           .begin = begin,
                           .end = end,
                           .argument = ttl,
                           .group = H_NO_GROUP});
}

START_TEST(test_expired) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_history();
        sent_to_live(1, 10, 20, 30);
        got(C, P1, wrong ? 51 : 50, 60);
        judge(wrong ? BIT(H_EXPIRED) : 0);
    }
    for (int wrong = 0; wrong < 2; wrong++) { /* passed by before its time */
        begin_history();
        h->group[group].counted = true;
        h->group[group].expired = 1;
        sent_to_live(1, 10, 20, 30);
        sent(P, 2, 21, 25);
        got(C, P2, 22, wrong ? 39 : 41);
        judge(wrong ? BIT(H_EXPIRED) : 0);
    }
}
END_TEST

START_TEST(test_killed) {
    for (int explained = 0; explained < 3; explained++) { /* a receive whose outcome nobody wrote down */
        begin_history();
        sent(P, 1, 10, 20);
        sent(P, 2, 30, 40);
        about(H_RECEIVE, D, group, 0, 0, 35, H_OPEN, 0);
        killed(D, explained == 2 ? 25 : 50);
        if (explained != 1) got(C, P1, 45, 60);
        h->group[group].drained = true;
        /* one kill takes one value, and none that was sent after it */
        judge(explained == 0 ? 0 : BIT(H_LOST));
    }
    for (int seen = 0; seen < 3; seen++) { /* a send that nobody saw the end of: once, or not at all */
        begin_history();
        sent(P, 1, 10, H_OPEN);
        killed(P, 20);
        if (seen) got(C, P1, 25, 30);
        if (seen == 2) got(C, P1, 35, 40);
        h->group[group].drained = true;
        judge(seen == 2 ? BIT(H_TWICE) : 0);
    }
    begin_history(); /* where one group received it, another must */
    uint32_t other = h_add_group(h, channel, "others");
    h->group[other].from_start = h->group[other].drained = true;
    sent(P, 1, 10, H_OPEN);
    killed(P, 20);
    got(C, P1, 25, 30);
    judge(BIT(H_LOST));
    begin_history(); /* of a batch under way what comes first was sent first */
    h->group[group].drained = true;
    sent(P, 1, 10, H_OPEN);
    sent(P, 2, 10, H_OPEN);
    killed(P, 20);
    got(C, P2, 25, 30);
    judge(BIT(H_LOST));
}
END_TEST

START_TEST(test_ids) {
    begin_history();
    sent(P, 1, 10, 20);
    sent(P, 1, 30, 40);
    got(C, P1, 45, 50);
    judge(BIT(H_BAD_ID));
    begin_history();
    h_add(h, P, (struct h_event){.kind = H_SEND, .value = Q1, .begin = 10, .end = 20, .group = H_NO_GROUP});
    judge(BIT(H_BAD_ID));
}
END_TEST

/* ---------------------------------------------------------------- acknowledgements */

static void begin_acks(void) {
    begin_history();
    h->group[group].acknowledges = h->group[group].drained = h->group[group].dead_letters = true;
    h->group[group].max_deliveries = 3;
    sent(P, 1, 10, 20);
}
static void delivered(uint32_t actor, uint32_t count, int64_t begin, int64_t end) {
    about(H_RECEIVE, actor, group, P1, count, begin, end, 0);
}
static void acked(uint32_t actor, uint32_t count, int64_t begin, int64_t end, int result) {
    about(H_ACK, actor, group, P1, count, begin, end, result);
}
static void nacked(uint32_t actor, uint32_t count, int64_t begin, int64_t end) {
    about(H_BACK, actor, group, P1, count, begin, end, 0);
}
static void buried(uint32_t actor, uint32_t count, int64_t begin, int64_t end) {
    about(H_DEAD, actor, group, P1, count, begin, end, 0);
}

START_TEST(test_acked) {
    begin_acks();
    delivered(C, 1, 30, 40);
    acked(C, 1, 50, 60, 0);
    judge(0);
    begin_acks();
    delivered(C, 1, 30, 40);
    nacked(C, 1, 50, 60);
    delivered(D, 2, 55, 70);
    acked(D, 2, 80, 90, 0);
    judge(0);
    begin_acks();
    delivered(C, 1, 30, 40);
    judge(BIT(H_NOT_ACKED));
    begin_acks();
    judge(BIT(H_LOST)); /* never delivered */
    begin_acks();
    delivered(C, 1, 30, 40);
    acked(C, 1, 50, 60, 0);
    acked(C, 1, 70, 80, 0);
    judge(BIT(H_ACKED_TWICE));
    begin_acks();
    delivered(C, 1, 30, 40);
    acked(D, 1, 50, 60, 0); /* who never had it */
    judge(BIT(H_ACKED_TWICE));
    begin_acks();
    delivered(C, 1, 30, 40);
    acked(C, 1, 50, 60, 0);
    delivered(D, 2, 65, 70);
    judge(BIT(H_ACKED_TWICE));
}
END_TEST

START_TEST(test_deliveries) {
    for (int wrong = 0; wrong < 4; wrong++) {
        begin_acks();
        delivered(C, 1, 30, 40);
        nacked(C, 1, 50, 60);
        delivered(D, wrong == 1 ? 3 : wrong == 2 ? 1 : wrong == 3 ? 4 : 2, 55, 70);
        acked(D, wrong == 1 ? 3 : wrong == 2 ? 1 : wrong == 3 ? 4 : 2, 80, 90, 0);
        judge(wrong ? BIT(H_DELIVERIES) : 0);
    }
    begin_acks(); /* without a count */
    delivered(C, 0, 30, 40);
    acked(C, 0, 50, 60, 0);
    judge(BIT(H_DELIVERIES));
    begin_acks(); /* counts that fall */
    delivered(C, 2, 30, 40);
    nacked(C, 2, 41, 42);
    delivered(D, 1, 45, 50);
    acked(D, 1, 80, 90, 0);
    judge(BIT(H_DELIVERIES));
    begin_acks(); /* the missing one went to one that was killed */
    about(H_RECEIVE, 6, group, 0, 0, 25, H_OPEN, 0);
    killed(6, 28);
    delivered(C, 2, 30, 40);
    acked(C, 2, 50, 60, 0);
    judge(0);
}
END_TEST

START_TEST(test_held_by_two) {
    for (int why = 0; why < 4; why++) {
        begin_acks();
        delivered(C, 1, 30, 40);
        if (why == 1) killed(C, 50);
        if (why == 2) h->group[group].timeout = 20;
        if (why == 3) nacked(C, 1, 50, 60);
        delivered(D, 2, 55, 70);
        acked(D, 2, 80, 90, 0);
        judge(why == 0 ? BIT(H_HELD_BY_TWO) : 0);
    }
    begin_acks(); /* given back later */
    delivered(C, 1, 30, 40);
    delivered(D, 2, 55, 70);
    nacked(C, 1, 75, 77);
    acked(D, 2, 80, 90, 0);
    judge(BIT(H_HELD_BY_TWO));
}
END_TEST

START_TEST(test_stale) {
    for (int wrong = 0; wrong < 2; wrong++) {
        begin_acks();
        h->group[group].timeout = 10;
        delivered(C, 1, 30, 40);
        if (!wrong) {
            delivered(D, 2, 55, 70);
            acked(D, 2, 80, 90, 0);
        }
        acked(C, 1, 95, 99, XI_E_STALE);
        judge(wrong ? BIT(H_STALE) | BIT(H_NOT_ACKED) : 0);
    }
}
END_TEST

START_TEST(test_dead_letters) {
    for (int wrong = 0; wrong < 5; wrong++) {
        begin_acks();
        delivered(C, 1, 30, 40);
        nacked(C, 1, 41, 42);
        delivered(C, 2, 45, 46);
        nacked(C, 2, 47, 48);
        delivered(C, 3, 50, 51);
        if (wrong == 3)
            acked(C, 3, 52, 53, 0);
        else
            nacked(C, 3, 52, 53);
        if (wrong != 4) buried(D, wrong == 1 ? 2 : 3, 60, 65);
        if (wrong == 2) buried(D, 3, 70, 75);
        judge(wrong == 0 ? 0 : wrong == 4 ? BIT(H_NOT_ACKED) : BIT(H_DEAD_LETTER));
    }
    for (uint64_t vanished = 0; vanished < 2; vanished++) { /* or vanished, counted */
        begin_acks();
        h->group[group].max_deliveries = 1;
        h->group[group].vanished = vanished;
        delivered(C, 1, 30, 40);
        nacked(C, 1, 41, 42);
        judge(vanished ? 0 : BIT(H_NOT_ACKED));
    }
    begin_acks(); /* one that nobody sent */
    delivered(C, 1, 30, 40);
    acked(C, 1, 50, 60, 0);
    about(H_DEAD, D, group, Q1, 3, 60, 65, 0);
    judge(BIT(H_DEAD_LETTER));
    begin_acks(); /* its last delivery was to one that was killed before it wrote that down: no other is missing */
    h->group[group].max_deliveries = 1;
    buried(D, 1, 60, 65);
    about(H_RECEIVE, C, group, 0, 0, 25, H_OPEN, 0);
    killed(C, 28);
    judge(0);
}
END_TEST

/* ------------------------------------------------------------------ the recorder, and size */

START_TEST(test_recorder) {
    uint64_t values[] = {P1, P2, P3};
    uint32_t counts[] = {0, 0, 0}, events[3];
    begin_history();
    for (uint32_t i = 0; i < 3; i++)
        events[i] = h_begin(h, P, (struct h_event){.kind = H_SEND, .value = values[i], .group = H_NO_GROUP});
    for (uint32_t i = 0; i < 3; i++) h_end(h, P, events[i], 0);
    uint32_t e = h_begin(h, C, (struct h_event){.kind = H_RECEIVE, .group = (uint16_t)group, .may_take = 3});
    ck_assert_int_eq(h_events(h, C)[e].end, H_OPEN);
    h_took(h, C, e, h_ended(h, C), values, counts, 3);
    ck_assert_uint_eq(h->actor[C].count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        const struct h_event *x = &h_events(h, C)[i];
        ck_assert(x->value == values[i] && x->result == 0 && x->begin <= x->end && x->end != H_OPEN);
        ck_assert(x->begin >= h_events(h, P)[i].end);
    }
    e = h_begin(h, D, (struct h_event){.kind = H_RECEIVE, .group = (uint16_t)group});
    h_end(h, D, e, XI_E_AGAIN);
    ck_assert(h_has_room(h, D, 4000) && !h_has_room(h, D, 4096));
    judge(0);
}
END_TEST

/* A million events in seconds: two producers and two consumers that take turns, with some overlap. */
START_TEST(test_large) {
    enum { EACH = 125000 };
    h = h_new(ACTORS, 4 * EACH + 100);
    h->start = 0;
    channel = h_add_channel(h, "jobs");
    for (uint32_t g = 0; g < 3; g++) h->group[h_add_group(h, channel, "g")].from_start = h->group[g].drained = true;
    for (int64_t i = 0; i < EACH; i++)
        for (uint32_t p = 0; p < 2; p++) {
            int64_t t = i * 100 + p * 30;
            sent(p, (uint64_t)i + 1, t, t + 50);
            for (uint32_t g = 0; g < 3; g++) got_for(g, 4 + (uint32_t)(i % 2), H_ID(p, i + 1), t + 200, t + 250);
        }
    for (uint32_t spoilt = 0; spoilt < 2; spoilt++) {
        if (spoilt) { /* two neighbours of one group, in the middle of it */
            struct h_event *e = &h_events(h, C)[EACH];
            uint64_t value = e[0].value;
            e[0].value = e[6].value;
            e[6].value = value;
        }
        h_check(h, &report);
        ck_assert_uint_eq(report.events, 8 * EACH);
        ck_assert_msg(report.count == report.of[H_ORDER] && (report.count > 0) == spoilt, "%s", report.text);
    }
    h_free(h);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("history_checker");
    TCase *all = tcase_create("history_checker");
    tcase_set_timeout(all, 100);
    tcase_add_test(all, test_right);
    tcase_add_test(all, test_lost);
    tcase_add_test(all, test_group_missed);
    tcase_add_test(all, test_before_join);
    tcase_add_test(all, test_from_oldest);
    tcase_add_test(all, test_from_last);
    tcase_add_test(all, test_retained);
    tcase_add_test(all, test_twice);
    tcase_add_test(all, test_phantom);
    tcase_add_test(all, test_failed);
    tcase_add_test(all, test_too_soon);
    tcase_add_test(all, test_order_of_producer);
    tcase_add_test(all, test_order_by_intervals);
    tcase_add_test(all, test_order_among_groups);
    tcase_add_test(all, test_order_in_a_circle);
    tcase_add_test(all, test_closed);
    tcase_add_test(all, test_not_empty);
    tcase_add_test(all, test_timed_out_early);
    tcase_add_test(all, test_slept);
    tcase_add_test(all, test_slept_on_its_value);
    tcase_add_test(all, test_send_slept);
    tcase_add_test(all, test_bound);
    tcase_add_test(all, test_dropped);
    tcase_add_test(all, test_expired);
    tcase_add_test(all, test_killed);
    tcase_add_test(all, test_ids);
    tcase_add_test(all, test_acked);
    tcase_add_test(all, test_deliveries);
    tcase_add_test(all, test_held_by_two);
    tcase_add_test(all, test_stale);
    tcase_add_test(all, test_dead_letters);
    tcase_add_test(all, test_recorder);
    tcase_add_test(all, test_large);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
