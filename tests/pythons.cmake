# SPDX-License-Identifier: MIT
# XI_TEST_PYTHONS and XI_TEST_VERSIONS: one CPython of each version from 3.11 on that this machine has. The module is
# built for these (libxi/bindings/python), so a test that cannot import it has failed.
set(XI_TEST_PYTHONS)
set(XI_TEST_VERSIONS)
file(GLOB candidates $ENV{HOME}/.pyenv/versions/*/bin/python3 /opt/python/*/bin/python3 /usr/bin/python3.[0-9]*
  /usr/local/bin/python3.[0-9]*)
find_program(XI_PYTHON3 python3)
if(XI_PYTHON3)
  list(PREPEND candidates ${XI_PYTHON3})
endif()
foreach(candidate ${candidates})
  execute_process(COMMAND ${candidate} -I -c
    "import sys; v = sys.version_info; print('%d.%d' % v[:2]) if v >= (3, 11) and sys.implementation.name == 'cpython' else None"
    OUTPUT_VARIABLE version ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(version AND NOT version IN_LIST XI_TEST_VERSIONS)
    list(APPEND XI_TEST_PYTHONS ${candidate})
    list(APPEND XI_TEST_VERSIONS ${version})
  endif()
endforeach()
