/* SPDX-License-Identifier: MIT */
/*
 * Ctrl-C without losing a value. A value that has been received is printed
 * before xi ends, so the signals only set a word, and blocking calls return
 * with XI_E_INTR or EINTR.
 *
 * A signal that arrives between the look at that word and the blocking call
 * would be slept over. Therefore the handler starts a timer whose signal comes
 * again every 20 ms until the program has ended.
 */
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "xi.h"

static volatile sig_atomic_t stopped;
static timer_t again;

static void on_again(int signal) { (void)signal; }

static void on_stop(int signal) {
    if (stopped == 0) {
        static const struct itimerspec soon = {{0, 20000000}, {0, 20000000}};
        stopped = signal;
        timer_settime(again, 0, &soon, NULL);
        struct sigaction fatal = {.sa_handler = SIG_DFL};
        sigaction(SIGINT, &fatal, NULL);
        sigaction(SIGTERM, &fatal, NULL);
        sigaction(SIGHUP, &fatal, NULL);
    }
}

void stop_install(void) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    if (timer_create(CLOCK_MONOTONIC, &event, &again) != 0) return; /* then the default action ends the program */
    struct sigaction action = {.sa_handler = on_again}; /* no SA_RESTART: blocking calls shall return */
    sigaction(SIGALRM, &action, NULL);
    action.sa_handler = on_stop;
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < 3; i++) {
        struct sigaction old;
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN) continue; /* nohup */
        sigaction(signals[i], &action, NULL);
    }
}

int stop_signal(void) { return stopped; }
