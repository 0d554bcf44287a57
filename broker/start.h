/* SPDX-License-Identifier: MIT */
/* Becoming the broker of a namespace: background process, lock file, socket. */
#ifndef XI_BROKER_START_H
#define XI_BROKER_START_H

#include <stdbool.h>

/* Goes to the background: the caller's process ends with status 0, and the function returns in a daemon with stdio on
 * /dev/null (stderr on `log_fd`, if not -1), no inherited descriptors but `keep_fd` (-1: none), the default signals,
 * and the root as its folder. *starter is a pidfd of the ended process, or -1. 0, or an enum xi_error. */
int start_daemonize(int keep_fd, int log_fd, int *starter);
/* Waits until the process that was started has ended, so that its parent can reap it at once. Closes `starter`. */
void start_await_end(int starter);
/* Raises the soft limit of descriptors to the hard one. */
void start_raise_limits(void);
/* Back to the usual priority and any processor: whoever started this broker may be pinned and spin at real-time priority,
 * and the broker serves everybody else too. */
void start_leave_scheduling(void);
/* Makes and checks the folder of sockets and takes the lock. The descriptor; XI_E_AGAIN: another broker has it. */
int start_lock(const char *ns);
/* Whether this descriptor, of whoever was the broker before, is that lock: then it is held again. */
bool start_is_lock(const char *ns, int fd);
/* Whether this descriptor is the listening socket that lies where start_socket(), or start_open_socket(), would make it. */
bool start_is_socket(const char *ns, bool open, int fd);
/* The listening socket, mode 0600. *stale: there was one already, of a broker that did not end properly. */
int start_socket(const char *ns, bool *stale);
/* The one for other users, mode 0666 in a folder that anybody may pass but the owner alone may write. */
int start_open_socket(const char *ns);
/* Removes the sockets, so that nobody comes any more; and the lock file, which is the last thing that a broker does. */
void start_remove_socket(const char *ns);
void start_remove_open_socket(const char *ns);
void start_remove_lock(const char *ns);

#endif
