#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# What is true of every source file here: it names its licence, is short
# enough to be read in one go, and has no trailing blanks or tabs.
set -u
cd "$XI_SOURCE" || exit 1
status=0
complain() {
    echo "$1: $2"
    status=1
}
while IFS= read -r file; do
    case "$file" in
        *.c | *.h | *.py | *.sh | *.cmake | CMakeLists.txt | */CMakeLists.txt | test | demo | .ci/run) ;;
        *) continue ;;
    esac
    head -n 3 "$file" | grep -q 'SPDX-License-Identifier: MIT' || complain "$file" "no SPDX line at the top"
    [ "$(wc -l <"$file")" -lt 900 ] || complain "$file" "$(wc -l <"$file") lines: divide it"
    ! grep -nE '[[:blank:]]+$' "$file" | head -n 3 | grep . || complain "$file" "blanks at the end of a line"
    [ -s "$file" ] && [ -z "$(tail -c 1 "$file")" ] || complain "$file" "does not end in a newline"
done < <(find . \( -name .git -o -name 'build*' -o -name node_modules \) -prune -o -type f -printf '%P\n' | sort)
exit $status
