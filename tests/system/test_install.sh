#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Installs into a folder of its own, moves it, and builds a small program
# against it by pkg-config (shared and static) and by find_package; then runs
# each with the installed broker.
set -eu

# Other settings than those of this build would be another test.
unset XI_BROKER PKG_CONFIG_PATH CMAKE_PREFIX_PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$XI_BUILD" --prefix "$work/first" >"$work/log" || { cat "$work/log"; exit 1; }
mv "$work/first" "$work/prefix" # what is installed may be moved
prefix=$work/prefix

lib=$(dirname "$(find "$prefix" -name libxidata.so)")
for file in bin/xi bin/xi-broker include/xidata.h; do
    [ -e "$prefix/$file" ] || { echo "not installed: $file"; exit 1; }
done
for file in libxidata.so libxidata.so.0 libxidata.a pkgconfig/xidata.pc cmake/xidata/xidataConfig.cmake; do
    [ -e "$lib/$file" ] || { echo "not installed: $lib/$file"; exit 1; }
done
[ "$(find "$XI_SOURCE/docs/man" -name '*.[137]' | wc -l)" = "$(find "$prefix/share/man" -type f | wc -l)" ] ||
    { echo "not every man page was installed"; exit 1; }
[ "$(find "$prefix/include" -type f | wc -l)" = 1 ] || { echo "one header is public, and one alone"; exit 1; }
# The library's whole face: nothing but xi_ may be visible.
if nm -D --defined-only "$lib/libxidata.so" | awk '{ print $3 }' | grep -v -e '^xi_' -e '^XIDATA_'; then
    echo "these symbols should not be visible"
    exit 1
fi

cat >"$work/hello.c" <<'C'
#include <stdio.h>
#include <xidata.h>

int main(void) {
    xi_interp *me = NULL;
    xi_channel *ch = NULL;
    xi_msg m = XI_MSG_INIT;
    xi_cursor c;
    xi_value v;
    int64_t n = 0;
    int rc = xi_join(NULL, &me);
    if (rc == 0) rc = xi_open(me, "hello", NULL, &ch);
    if (rc == 0) rc = xi_send_int(ch, 42, XI_FOREVER);
    if (rc == 0) rc = xi_recv(ch, &m, XI_FOREVER);
    if (rc) {
        fprintf(stderr, "%s\n", xi_error_text(rc));
        return 1;
    }
    xi_cursor_init(&c, m.data, m.size);
    if (xi_next(&c, &v) != 1 || xi_get_int(&v, &n) != 0) return 1;
    xi_msg_release(&m);
    xi_channel_free(ch);
    xi_leave(me);
    printf("%lld\n", (long long)n);
    return n == 42 ? 0 : 1;
}
C

run() { # WHAT PROGRAM PATH: the broker is found beside the library, or by PATH
    local out
    out=$(PATH="$3" LD_LIBRARY_PATH="$lib" "$2") || { echo "$1: status $?"; exit 1; }
    [ "$out" = 42 ] || { echo "$1: got \"$out\""; exit 1; }
    echo "$1: ok"
}

export PKG_CONFIG_PATH=$lib/pkgconfig
# shellcheck disable=SC2046 # flags are words
{
    cc -std=c11 -Wall -Wextra -Werror -pedantic "$work/hello.c" -o "$work/shared" $(pkg-config --cflags --libs xidata)
    cc -std=c11 "$work/hello.c" -o "$work/static" $(pkg-config --cflags xidata) "$lib/libxidata.a" \
        $(pkg-config --static --libs xidata | sed 's/-lxidata//')
}
run "pkg-config, shared" "$work/shared" /usr/bin:/bin
run "pkg-config, static" "$work/static" "$prefix/bin:/usr/bin:/bin"
[ "$(pkg-config --modversion xidata)" = "$("$prefix/bin/xi" --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -1)" ] ||
    { echo "xidata.pc and xi --version disagree"; exit 1; }

if command -v c++ >/dev/null; then
    # The header is for C++ too.
    # shellcheck disable=SC2046
    c++ -fsyntax-only -Wall -Wextra -Werror -x c++ - $(pkg-config --cflags xidata) <<<'#include <xidata.h>'
    echo "C++ reads the header"
fi

mkdir "$work/project"
cp "$work/hello.c" "$work/project/"
cat >"$work/project/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.22)
project(hello LANGUAGES C)
find_package(xidata 0.1 REQUIRED)
add_executable(shared hello.c)
target_link_libraries(shared PRIVATE xidata::xidata)
add_executable(static hello.c)
target_link_libraries(static PRIVATE xidata::static)
CMAKE
{ cmake -G Ninja -S "$work/project" -B "$work/project/build" -DCMAKE_PREFIX_PATH="$prefix" &&
    cmake --build "$work/project/build"; } >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
run "find_package, shared" "$work/project/build/shared" /usr/bin:/bin
run "find_package, static" "$work/project/build/static" "$prefix/bin:/usr/bin:/bin"
