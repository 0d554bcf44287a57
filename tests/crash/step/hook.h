/* SPDX-License-Identifier: MIT */
/* Put before broker/repair*.c: a step before each store of repair, at which this test kills it. */
#ifndef XI_TESTS_STEP_HOOK_H
#define XI_TESTS_STEP_HOOK_H

void step_of_repair(void);
#define XI_REPAIR_STEP() step_of_repair()

#endif
