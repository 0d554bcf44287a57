/* SPDX-License-Identifier: MIT */
/* What scenes and judge share. */
#ifndef XI_TESTS_STEP_SCENES_H
#define XI_TESTS_STEP_SCENES_H

#include "step.h"

extern unsigned freed[64]; /* in T: how often the free function ran for each argument */
void sleeper_sends(struct part_in *w);
void sleeper_receives(struct part_in *w);

#endif
