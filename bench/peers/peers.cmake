# SPDX-License-Identifier: MIT
# The peers that need more than the C library: each a module, if what it needs is found.
set(XI_BENCH_PEERS_BUILT "pipe, unix, seqpacket, mq")
set(XI_BENCH_PEERS_MISSING "")

# xi_peer(NAME SOURCE FOUND WHAT-IT-NEEDS [INCLUDES dir...] [LINK library...])
function(xi_peer name source found needs)
  cmake_parse_arguments(arg "" "" "INCLUDES;LINK;OPTIONS" ${ARGN})
  if(NOT found)
    set(XI_BENCH_PEERS_MISSING "${XI_BENCH_PEERS_MISSING} ${name} (${needs})" PARENT_SCOPE)
    return()
  endif()
  set(XI_BENCH_PEERS_BUILT "${XI_BENCH_PEERS_BUILT}, ${name}" PARENT_SCOPE)
  add_library(peer_${name} MODULE peers/${source})
  target_include_directories(peer_${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_include_directories(peer_${name} SYSTEM PRIVATE ${arg_INCLUDES})
  target_compile_options(peer_${name} PRIVATE ${arg_OPTIONS})
  target_link_libraries(peer_${name} PRIVATE ${arg_LINK})
  set_target_properties(peer_${name} PROPERTIES PREFIX ""
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib/xidata-bench)
  install(TARGETS peer_${name} LIBRARY DESTINATION lib/xidata-bench)
endfunction()

# Boost has no C interface: the one adapter in C++, and only where there is a compiler for it.
include(CheckLanguage)
check_language(CXX)
set(boost OFF)
if(CMAKE_CXX_COMPILER)
  enable_language(CXX)
  find_path(BOOST_INTERPROCESS boost/interprocess/ipc/message_queue.hpp)
  if(BOOST_INTERPROCESS)
    set(boost ON)
  endif()
endif()
xi_peer(boost boost.cpp "${boost}" "libboost-dev, a C++ compiler" INCLUDES ${BOOST_INTERPROCESS} LINK rt OPTIONS -std=c++17)

pkg_check_modules(ZMQ libzmq)
xi_peer(zeromq zeromq.c "${ZMQ_FOUND}" libzmq3-dev INCLUDES ${ZMQ_INCLUDE_DIRS} LINK ${ZMQ_LDFLAGS})

find_path(NNG_INCLUDE nng/nng.h)
find_library(NNG_LIBRARY nng)
set(nng OFF)
if(NNG_INCLUDE AND NNG_LIBRARY)
  set(nng ON)
endif()
xi_peer(nng nng.c "${nng}" libnng-dev INCLUDES ${NNG_INCLUDE} LINK ${NNG_LIBRARY})

# Two MPIs, which may both be there: each by its own pkg-config file, with its own mpiexec.
foreach(mpi "mpich;mpich;MPICH" "openmpi;ompi-c;Open MPI")
  list(GET mpi 0 name)
  list(GET mpi 1 package)
  list(GET mpi 2 what)
  pkg_check_modules(MPI_${name} ${package})
  find_program(MPIEXEC_${name} mpiexec.${name})
  set(found OFF)
  if(MPI_${name}_FOUND AND MPIEXEC_${name})
    set(found ON)
  endif()
  xi_peer(${name} mpi.c "${found}" "mpiexec.${name} and ${package}.pc" INCLUDES ${MPI_${name}_INCLUDE_DIRS}
    LINK ${MPI_${name}_LDFLAGS} OPTIONS "-DPEER_MPI_NAME=\"${name}\"" "-DPEER_MPI_WHAT=\"${what}\""
    "-DPEER_MPI_EXEC=\"${MPIEXEC_${name}}\"")
endforeach()

pkg_check_modules(HIREDIS hiredis)
xi_peer(redis redis.c "${HIREDIS_FOUND}" libhiredis-dev LINK ${HIREDIS_LDFLAGS})

pkg_check_modules(NATS libnats)
xi_peer(nats nats.c "${NATS_FOUND}" libnats-dev INCLUDES ${NATS_INCLUDE_DIRS} LINK ${NATS_LDFLAGS})

file(GLOB ICEORYX_INCLUDE /usr/include/iceoryx/v2* /usr/local/include/iceoryx/v2*)
find_library(ICEORYX_LIBRARY iceoryx_binding_c)
set(iceoryx OFF)
if(ICEORYX_INCLUDE AND ICEORYX_LIBRARY)
  set(iceoryx ON)
endif()
xi_peer(iceoryx iceoryx.c "${iceoryx}" libiceoryx-binding-c-dev INCLUDES ${ICEORYX_INCLUDE} LINK ${ICEORYX_LIBRARY})

# No packages: XI_BENCH_ICEORYX2 and XI_BENCH_AERON are where they were built or installed. iceoryx2: a prefix, or its
# sources with cargo's folder "target" below them.
set(ICEORYX2 $ENV{XI_BENCH_ICEORYX2} CACHE PATH "Where iceoryx2 with its C binding is (a peer of the benchmark)")
set(iceoryx2 OFF)
if(ICEORYX2)
  file(GLOB ICEORYX2_HEADERS ${ICEORYX2}/include ${ICEORYX2}/include/iceoryx2/v*
    ${ICEORYX2}/target/release/iceoryx2-ffi-c-cbindgen/include ${ICEORYX2}/release/iceoryx2-ffi-c-cbindgen/include)
  find_path(ICEORYX2_INCLUDE iox2/iceoryx2.h PATHS ${ICEORYX2_HEADERS} NO_DEFAULT_PATH)
  find_library(ICEORYX2_LIBRARY iceoryx2_ffi_c PATHS ${ICEORYX2} PATH_SUFFIXES lib lib64 target/release release NO_DEFAULT_PATH)
  if(ICEORYX2_INCLUDE AND ICEORYX2_LIBRARY)
    set(iceoryx2 ON)
  else()
    message(WARNING "XI_BENCH_ICEORYX2 names ${ICEORYX2}, but iox2/iceoryx2.h (${ICEORYX2_INCLUDE}) or libiceoryx2_ffi_c "
      "(${ICEORYX2_LIBRARY}) is not there")
  endif()
endif()
xi_peer(iceoryx2 iceoryx2.c "${iceoryx2}" XI_BENCH_ICEORYX2 INCLUDES ${ICEORYX2_INCLUDE}
  LINK ${ICEORYX2_LIBRARY} pthread m dl OPTIONS -Wno-pedantic)

# Aeron: where it was built or installed, or its sources, with the build below them.
set(AERON $ENV{XI_BENCH_AERON} CACHE PATH "Where Aeron with its C client is (a peer of the benchmark)")
set(aeron OFF)
if(AERON)
  find_path(AERON_INCLUDE aeronc.h PATHS ${AERON} PATH_SUFFIXES include include/aeron aeron-client/src/main/c
    ../aeron-client/src/main/c NO_DEFAULT_PATH)
  file(GLOB AERON_PLACES ${AERON} ${AERON}/* )
  find_library(AERON_LIBRARY aeron PATHS ${AERON_PLACES} PATH_SUFFIXES lib NO_DEFAULT_PATH)
  find_program(AERON_DRIVER aeronmd PATHS ${AERON_PLACES} PATH_SUFFIXES bin binaries NO_DEFAULT_PATH)
  if(AERON_INCLUDE AND AERON_LIBRARY AND AERON_DRIVER)
    set(aeron ON)
  else()
    message(WARNING "XI_BENCH_AERON names ${AERON}, but aeronc.h (${AERON_INCLUDE}), libaeron (${AERON_LIBRARY}) or "
      "aeronmd (${AERON_DRIVER}) is not there")
  endif()
endif()
xi_peer(aeron aeron.c "${aeron}" XI_BENCH_AERON INCLUDES ${AERON_INCLUDE} LINK ${AERON_LIBRARY}
  OPTIONS "-DAERON_DRIVER=\"${AERON_DRIVER}\"")

message(STATUS "Benchmark peers: ${XI_BENCH_PEERS_BUILT}")
if(XI_BENCH_PEERS_MISSING)
  message(STATUS "Benchmark peers not found:${XI_BENCH_PEERS_MISSING}")
endif()
