/* SPDX-License-Identifier: MIT */
/*
 * The inputs that are kept for a fuzzer, once each and without one: a regression
 * test for builds that are no fuzzers' builds. The folder is the argument.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void give_up(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void replay(const char *path) {
    struct stat st;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &st) != 0) give_up(path);
    uint8_t *data = malloc((size_t)st.st_size); /* not a byte more: the address sanitizer looks */
    if (st.st_size && (!data || fread(data, 1, (size_t)st.st_size, file) != (size_t)st.st_size)) give_up(path);
    fclose(file);
    (void)LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
    free(data);
}

int main(int argc, char **argv) {
    unsigned n = 0;
    if (argc < 2) return 2;
    DIR *folder = opendir(argv[1]);
    if (!folder) give_up(argv[1]);
    for (struct dirent *d; (d = readdir(folder));) {
        char path[4096];
        if (d->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", argv[1], d->d_name);
        replay(path);
        n++;
    }
    closedir(folder);
    printf("%u inputs\n", n);
    return n ? 0 : 1;
}
