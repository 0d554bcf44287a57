/* SPDX-License-Identifier: MIT */
/* What test_history.c has of history_chaos.c, which has the model. */
#ifndef XI_TEST_HISTORY_CHAOS_H
#define XI_TEST_HISTORY_CHAOS_H

#include "history_run.h"

extern bool chaos; /* every run is one of these */

/* Around a run: `begin` when its channel is there, `end` when its workers have ended, `measure` before its history goes. */
void chaos_begin(void);
void chaos_end(void);
void chaos_measure(void);
/* A look every millisecond: stops some, lets others go on, kills the broker. */
void chaos_turn(uint64_t *random, const pid_t *pids, uint32_t count);
/* Around the kill of a worker's process. */
void chaos_before_kill(pid_t pid);
void chaos_killed(int64_t at);
/* Over all runs: how soon others went on. Fails where that was much too late. */
void chaos_judge(void);

#endif
