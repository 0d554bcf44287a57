#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# What is true of every source file here: it names its licence, is short
# enough to be read in one go, and has no blanks at the ends of lines.
set -u
cd "$XI_SOURCE" || exit 1
mapfile -t files < <(find . \( -name .git -o -name 'build*' -o -name node_modules \) -prune -o -type f \
    \( -name '*.[ch]' -o -name '*.py' -o -name '*.sh' -o -name '*.cmake' -o -name CMakeLists.txt -o -path ./test \
    -o -path ./demo -o -path ./.ci/run \) -print | sort)
[ ${#files[@]} -gt 50 ] || { echo "only ${#files[@]} source files were found"; exit 1; }
awk '
    function complain(text) { print FILENAME ": " text; bad = 1 }
    FNR == 1 { licensed[FILENAME] = 0 }
    FNR <= 3 && /SPDX-License-Identifier: MIT/ { licensed[FILENAME] = 1 }
    FNR == 900 { complain("900 lines and more: divide it") }
    /[ \t]$/ { complain("line " FNR ": blanks at its end") }
    END {
        for (file in licensed) if (!licensed[file]) { print file ": no SPDX line at the top"; bad = 1 }
        exit bad
    }' "${files[@]}"
