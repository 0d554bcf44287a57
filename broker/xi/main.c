/* SPDX-License-Identifier: MIT */
/*
 * xi: the command for people who look at, feed, drain and tidy namespaces.
 * Finds the subcommand; each lives in a file of its own.
 */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xi.h"

static const struct command *const commands[] = {&command_broker, &command_ls,   &command_send,  &command_recv,
                                                 &command_tail,   &command_call,
                                                 &command_close,  &command_rm,  &command_group, &command_ack, &command_dead, &command_run,
                                                 &command_doctor};
#define COMMANDS (sizeof commands / sizeof commands[0])

static const struct command *current;

void say(const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fflush(stdout);
    fprintf(stderr, "xi%s%s: %s\n", current ? " " : "", current ? current->name : "", text);
}

int say_usage(const char *format, ...) {
    char text[800];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    say("%s (see: xi help%s%s)", text, current ? " " : "", current ? current->name : "");
    return XI_EXIT_USAGE;
}

int say_bad_option(int argc, char **argv, int got) {
    const char *word = optind > 0 && optind <= argc ? argv[optind - 1] : "";
    char letter[3] = {'-', (char)optopt, 0};
    bool is_letter = optopt > 0 && optopt < 128;
    const char *name = is_letter ? letter : word;
    if (got == ':') return say_usage("option %s needs a value", name);
    return say_usage("there is no option %s here, or it takes no value", name);
}

int print_help(void) {
    fputs(current->usage, stdout);
    return fflush(stdout) == 0 ? XI_EXIT_OK : XI_EXIT_FAILED;
}

static int print_overview(FILE *to) {
    fputs("xi: look at and use the channels through which interpreter processes hand each other values\n\n"
          "usage: xi COMMAND [OPTIONS] ...\n\n", to);
    for (size_t i = 0; i < COMMANDS; i++) fprintf(to, "  xi %-8s %s\n", commands[i]->name, commands[i]->summary);
    fputs("  xi help [COMMAND]\n  xi --version\n\n"
          "A first try, in two terminals:\n\n"
          "  xi recv jobs\n"
          "  xi send jobs 1 '\"two\"' '{\"three\":[3,null]}'\n\n"
          "Environment: XI_NAMESPACE (default namespace), XI_RUNTIME_DIR, XI_BROKER, XI_WAIT, XI_SPIN_US, XI_LINGER. See\nxi(1).\n", to);
    return fflush(to) == 0 ? XI_EXIT_OK : XI_EXIT_FAILED;
}

static const struct command *find(const char *name) {
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    return NULL;
}

static int unknown(const char *name) {
    for (size_t i = 0; i < COMMANDS; i++)
        if (name[0] && strncmp(commands[i]->name, name, name[1] ? 2 : 1) == 0)
            return say_usage("there is no command \"%.40s\"; did you mean %s?", name, commands[i]->name);
    return say_usage("there is no command \"%.40s\"", name);
}

static int help(int argc, char **argv) {
    if (argc < 3) return print_overview(stdout);
    const struct command *c = find(argv[2]);
    if (!c) return unknown(argv[2]);
    current = c;
    return print_help();
}

int main(int argc, char **argv) {
    if (argc < 2) {
        print_overview(stderr);
        return XI_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("xi %s\n", XI_VERSION);
        return fflush(stdout) == 0 ? XI_EXIT_OK : XI_EXIT_FAILED;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) return help(argc, argv);
    current = find(name);
    if (!current) return unknown(name);
    opterr = 0; /* messages are ours: say_bad_option() */
    return current->run(argc - 1, argv + 1);
}
