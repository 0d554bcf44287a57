# SPDX-License-Identifier: MIT
# XI_TEST_PYTHONS and XI_TEST_VERSIONS: one CPython of each version from 3.9 on that this machine has, and of each
# free-threaded one (3.13t). The module is built for these (libxi/bindings/python), so a test that cannot import it has failed.
set(XI_TEST_PYTHONS)
set(XI_TEST_VERSIONS)
file(GLOB candidates $ENV{HOME}/.pyenv/versions/*/bin/python3 /opt/python/*/bin/python3 /usr/local/bin/python3)
file(GLOB more /usr/bin/python3.[0-9]*) # Debian's further ones
list(FILTER more INCLUDE REGEX "/python3\\.[0-9]+$")
list(PREPEND candidates /usr/bin/python3 ${more}) # the system's, where two have the same version: it may have numpy
foreach(name python3.13t python3.14t python3.15t) # seldom where others are: those on PATH
  if(XI_FOUND_${name})
    list(APPEND candidates ${XI_FOUND_${name}})
  endif()
endforeach()
foreach(candidate ${candidates})
  execute_process(COMMAND ${candidate} -I -c
    "import sys; v = sys.version_info; import os, sysconfig; print('%d.%d' % v[:2] + 't' * bool(sysconfig.get_config_var('Py_GIL_DISABLED'))) if os.path.exists(sysconfig.get_path('include') + '/Python.h') and v >= (3, 9) and sys.implementation.name == 'cpython' else None"
    OUTPUT_VARIABLE version ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(version AND NOT version IN_LIST XI_TEST_VERSIONS)
    list(APPEND XI_TEST_PYTHONS ${candidate})
    list(APPEND XI_TEST_VERSIONS ${version})
  endif()
endforeach()
