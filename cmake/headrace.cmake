# How Headrace is built: the toolchain, the libraries by one name each, and one function per kind of
# target. A room's CMakeLists.txt says what the room consists of and nothing about how it is built.
#
#   headrace_room(
#     NAME base                      # target headrace_base; nested rooms: runtime_uring, meta_store
#     SOURCES a.cc b.cc              # explicit; none for a room of headers or of tests only
#     DEPS runtime proto             # rooms it stands on
#     LIBS headrace::fmt             # libraries that its headers show
#     PRIVATE_LIBS headrace::zstd    # libraries that only its sources use
#     TESTS a_test.cc b_test.cc      # together one executable, base_test
#     TEST_DEPS runtime_sim          # rooms that only tests and fuzzers use
#     TEST_LIBS headrace::json       # libraries that only tests and fuzzers use
#     TEST_LABELS slow               # ctest labels of all its tests
#     TEST_TIMEOUT 300               # seconds a test; 120 if not given
#     MUTANTS a.cc                   # sources that hold mutants (base/fault_point.h), see below
#     FUZZ a_fuzz.cc)                # each an executable a_fuzz
#
# Sources with mutants compile a second time, with -DHEADRACE_MUTANTS, into headrace_NAME_mutants: objects that
# headrace-sim-mutants links in front of the rooms' libraries, whose own variants the linker then leaves out. Nothing else
# uses them, and `all` does not build them.
#
#   headrace_binary(NAME headrace SOURCES main.cc DEPS admin client LIBS headrace::cli11)
#
# Labels by name, so that they need no list beside the tests: a test whose suite or name contains
# BadInput has the label bad-input; one that contains LongRun has the label long.

set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

macro(headrace_toolchain)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang" OR CMAKE_CXX_COMPILER_VERSION VERSION_LESS 19)
    message(FATAL_ERROR "Headrace builds with clang 19 or newer, not ${CMAKE_CXX_COMPILER_ID} "
                        "${CMAKE_CXX_COMPILER_VERSION}: gcc 12 miscompiles coroutines. "
                        "Run scripts/setup, then cmake --preset release.")
  endif()

  add_compile_options(-Wall -Wextra -Wno-missing-field-initializers -fno-omit-frame-pointer)
  if(HEADRACE_WERROR)
    add_compile_options(-Werror)
  endif()
  add_link_options(-fuse-ld=lld)

  # Clang takes the newest gcc it finds; Debian's C++ libraries are built against this one.
  set(_gcc_dir /usr/lib/gcc/${CMAKE_LIBRARY_ARCHITECTURE}/12)
  if(EXISTS ${_gcc_dir})
    add_compile_options(--gcc-install-dir=${_gcc_dir})
    add_link_options(--gcc-install-dir=${_gcc_dir})
  endif()

  # The baseline every machine we support has; faster code paths are chosen at run time.
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    add_compile_options(-msse4.2)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    add_compile_options(-march=armv8-a+crc)
  endif()

  # Names of source files relative to the root, in debug information as in __FILE__: messages are
  # short, no build machine's paths are in a binary, and objects are equal from tree to tree.
  file(RELATIVE_PATH _to_source ${CMAKE_BINARY_DIR} ${CMAKE_SOURCE_DIR})
  add_compile_options(-ffile-prefix-map=${CMAKE_SOURCE_DIR}/= -fdebug-compilation-dir=.)
  if(_to_source)
    add_compile_options(-ffile-prefix-map=${_to_source}=)
  endif()

  # With base_dir, ccache sees paths relative to the build directory: all of build/*, and clones,
  # then share objects that have the same flags.
  find_program(HEADRACE_CCACHE ccache)
  if(HEADRACE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
    set(CMAKE_CXX_COMPILER_LAUNCHER env CCACHE_NOHASHDIR=1 CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}
        CCACHE_ABSSTDERR=1 ${HEADRACE_CCACHE})
    mark_as_advanced(HEADRACE_CCACHE)
  endif()

  if(HEADRACE_CHECKED_LIBRARY)
    add_compile_definitions(_GLIBCXX_ASSERTIONS)
  endif()
  if(HEADRACE_SANITIZE)
    add_compile_options(-fsanitize=${HEADRACE_SANITIZE} -fno-sanitize-recover=all)
    add_link_options(-fsanitize=${HEADRACE_SANITIZE} -fno-sanitize-recover=all)
  endif()
  if(HEADRACE_FUZZ)
    add_compile_options(-fsanitize=fuzzer-no-link)
    add_link_options(-fsanitize=fuzzer-no-link)
  endif()

  # Assertions guard what is written to disk; no build of Headrace is without them.
  string(TOUPPER "${CMAKE_BUILD_TYPE}" _type)
  if(NOT _type MATCHES "^(RELWITHDEBINFO|DEBUG)$")
    message(FATAL_ERROR "CMAKE_BUILD_TYPE is '${CMAKE_BUILD_TYPE}': use a preset "
                        "(cmake --list-presets)")
  endif()
  if("${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${_type}}" MATCHES "NDEBUG")
    message(FATAL_ERROR "NDEBUG is set (${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${_type}}): "
                        "assertions are always on. Use a preset (cmake --list-presets)")
  endif()
endmacro()

# --- Libraries --------------------------------------------------------------------------------------

# headrace_dependency(NAME HEADER x.h PACKAGE debian-package [TARGET cmake::target] [LIBRARIES a b])
# defines headrace::NAME. What is missing is collected and reported once, with the command that mends
# it: a newcomer should not meet twenty failures one after another.
function(headrace_dependency name)
  cmake_parse_arguments(arg "" "HEADER;PACKAGE" "TARGETS;LIBRARIES" ${ARGN})
  find_path(HEADRACE_${name}_INCLUDE ${arg_HEADER})
  mark_as_advanced(HEADRACE_${name}_INCLUDE)
  set(ok ${HEADRACE_${name}_INCLUDE})
  set(link)
  foreach(library IN LISTS arg_LIBRARIES)
    find_library(HEADRACE_${name}_${library} ${library})
    mark_as_advanced(HEADRACE_${name}_${library})
    list(APPEND link ${HEADRACE_${name}_${library}})
    if(NOT HEADRACE_${name}_${library})
      set(ok FALSE)
    endif()
  endforeach()
  foreach(target IN LISTS arg_TARGETS)
    list(APPEND link ${target})
    if(NOT TARGET ${target})
      set(ok FALSE)
    endif()
  endforeach()
  if(NOT ok)
    set_property(GLOBAL APPEND PROPERTY HEADRACE_MISSING "${name} (Debian: ${arg_PACKAGE})")
    return()
  endif()
  add_library(headrace_dep_${name} INTERFACE)
  target_link_libraries(headrace_dep_${name} INTERFACE ${link})
  add_library(headrace::${name} ALIAS headrace_dep_${name})
endfunction()

macro(headrace_dependencies)
  find_package(Threads REQUIRED)
  foreach(_package IN ITEMS fmt spdlog RocksDB pugixml OpenSSL CURL GTest benchmark prometheus-cpp)
    find_package(${_package} QUIET)
  endforeach()
  headrace_dependency(fmt HEADER fmt/core.h PACKAGE libfmt-dev TARGETS fmt::fmt)
  headrace_dependency(spdlog HEADER spdlog/spdlog.h PACKAGE libspdlog-dev TARGETS spdlog::spdlog)
  headrace_dependency(uring HEADER liburing.h PACKAGE liburing-dev LIBRARIES uring)
  headrace_dependency(isal HEADER isa-l.h PACKAGE libisal-dev LIBRARIES isal)
  headrace_dependency(jemalloc HEADER jemalloc/jemalloc.h PACKAGE libjemalloc-dev LIBRARIES jemalloc)
  headrace_dependency(rocksdb HEADER rocksdb/db.h PACKAGE librocksdb-dev LIBRARIES rocksdb)
  headrace_dependency(json HEADER nlohmann/json.hpp PACKAGE nlohmann-json3-dev)
  headrace_dependency(pugixml HEADER pugixml.hpp PACKAGE libpugixml-dev LIBRARIES pugixml)
  headrace_dependency(toml HEADER toml++/toml.h PACKAGE libtomlplusplus-dev)
  headrace_dependency(cli11 HEADER CLI/CLI.hpp PACKAGE libcli11-dev)
  headrace_dependency(openssl HEADER openssl/ssl.h PACKAGE libssl-dev
                      TARGETS OpenSSL::SSL OpenSSL::Crypto)
  headrace_dependency(curl HEADER curl/curl.h PACKAGE libcurl4-openssl-dev TARGETS CURL::libcurl)
  headrace_dependency(zstd HEADER zstd.h PACKAGE libzstd-dev LIBRARIES zstd)
  headrace_dependency(lz4 HEADER lz4.h PACKAGE liblz4-dev LIBRARIES lz4)
  headrace_dependency(xxhash HEADER xxhash.h PACKAGE libxxhash-dev LIBRARIES xxhash)
  headrace_dependency(httplib HEADER httplib.h PACKAGE libcpp-httplib-dev LIBRARIES cpp-httplib)
  # As the library itself was compiled (its pkg-config file): its classes are of another size without.
  if(TARGET headrace_dep_httplib)
    target_compile_definitions(headrace_dep_httplib INTERFACE CPPHTTPLIB_OPENSSL_SUPPORT CPPHTTPLIB_ZLIB_SUPPORT
                                                              CPPHTTPLIB_BROTLI_SUPPORT)
  endif()
  headrace_dependency(prometheus HEADER prometheus/registry.h PACKAGE prometheus-cpp-dev
                      LIBRARIES prometheus-cpp-core)
  headrace_dependency(gtest HEADER gtest/gtest.h PACKAGE "libgtest-dev libgmock-dev"
                      TARGETS GTest::gtest GTest::gmock GTest::gtest_main)
  headrace_dependency(benchmark HEADER benchmark/benchmark.h PACKAGE libbenchmark-dev
                      TARGETS benchmark::benchmark)
  # For daemons: 5 to 10 % of their processor time, and memory that goes back. Sanitizers bring one of their own.
  add_library(headrace_allocator INTERFACE)
  add_library(headrace::allocator ALIAS headrace_allocator)
  if(NOT HEADRACE_SANITIZE AND TARGET headrace::jemalloc)
    target_link_libraries(headrace_allocator INTERFACE headrace::jemalloc)
  endif()
  get_property(_missing GLOBAL PROPERTY HEADRACE_MISSING)
  if(_missing)
    list(JOIN _missing "\n  " _missing)
    message(FATAL_ERROR "Libraries are missing:\n  ${_missing}\nRun scripts/setup, which installs "
                        "them, then configure again.")
  endif()
  include(GoogleTest)
  find_package(Python3 3.9 REQUIRED COMPONENTS Interpreter)
endmacro()

# --- Targets ----------------------------------------------------------------------------------------

# Rooms are linked by an alias with '::', so that a misspelt or absent room fails at configuration by
# its name instead of becoming '-lname' on some linker command.
function(_headrace_room_targets out)
  set(targets)
  foreach(room IN LISTS ARGN)
    list(APPEND targets room::${room})
  endforeach()
  set(${out} ${targets} PARENT_SCOPE)
endfunction()

function(_headrace_no_leftovers function)
  if(ARGN)
    message(FATAL_ERROR "${function}: unknown arguments '${ARGN}' in ${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
endfunction()

function(headrace_room)
  cmake_parse_arguments(arg "" "NAME;TEST_TIMEOUT"
      "SOURCES;DEPS;LIBS;PRIVATE_LIBS;TESTS;TEST_DEPS;TEST_LIBS;TEST_LABELS;MUTANTS;FUZZ" ${ARGN})
  _headrace_no_leftovers("headrace_room(${arg_NAME})" ${arg_UNPARSED_ARGUMENTS})
  if(NOT arg_TEST_TIMEOUT)
    set(arg_TEST_TIMEOUT 120)
  endif()
  set(room headrace_${arg_NAME})
  _headrace_room_targets(deps ${arg_DEPS})
  _headrace_room_targets(test_deps ${arg_TEST_DEPS})

  set(public INTERFACE)
  set(includes ${CMAKE_SOURCE_DIR}/src)
  if(NOT CMAKE_CURRENT_SOURCE_DIR MATCHES "^${CMAKE_SOURCE_DIR}/src(/|$)")
    list(APPEND includes ${CMAKE_SOURCE_DIR})  # sim/, tests/, bench/ name their own headers from here
  endif()
  if(arg_SOURCES)
    set(public PUBLIC)
    add_library(${room} STATIC ${arg_SOURCES})
    target_link_libraries(${room} PRIVATE ${arg_PRIVATE_LIBS})
  else()
    add_library(${room} INTERFACE)
  endif()
  add_library(room::${arg_NAME} ALIAS ${room})
  target_include_directories(${room} ${public} ${includes})
  target_link_libraries(${room} ${public} ${deps} ${arg_LIBS} Threads::Threads)

  if(arg_MUTANTS)
    add_library(${room}_mutants OBJECT EXCLUDE_FROM_ALL ${arg_MUTANTS})
    target_compile_definitions(${room}_mutants PRIVATE HEADRACE_MUTANTS)
    target_link_libraries(${room}_mutants PRIVATE ${room} ${arg_PRIVATE_LIBS})
    set_property(GLOBAL APPEND PROPERTY HEADRACE_MUTANTS ${room}_mutants)
  endif()

  set(for_tests ${room} ${test_deps} ${arg_TEST_LIBS} ${arg_PRIVATE_LIBS})
  if(arg_TESTS AND NOT HEADRACE_FUZZ)
    add_executable(${arg_NAME}_test ${arg_TESTS})
    target_link_libraries(${arg_NAME}_test PRIVATE ${for_tests} headrace::gtest)
    _headrace_discover(${arg_NAME} "${arg_TEST_LABELS}" ${arg_TEST_TIMEOUT})
  endif()

  foreach(source IN LISTS arg_FUZZ)
    _headrace_fuzzer(${source} ${for_tests})
  endforeach()
endfunction()

# Discovered when ctest runs, not at build: a test binary that cannot start should fail tests, not
# the build, and cross builds stay possible. Properties are set by a file of our own that ctest reads
# after the discovered list, because gtest_discover_tests flattens lists (two labels become a label
# and a property name), and because labels depend on the test's name.
function(_headrace_discover name labels timeout)
  gtest_discover_tests(${name}_test
      DISCOVERY_MODE PRE_TEST
      DISCOVERY_TIMEOUT 60
      TEST_PREFIX ${name}.
      TEST_LIST ${name}_TESTS
      NO_PRETTY_TYPES NO_PRETTY_VALUES)
  set(file ${CMAKE_CURRENT_BINARY_DIR}/${name}_test_properties.cmake)
  file(CONFIGURE OUTPUT ${file} @ONLY CONTENT [=[
foreach(test IN LISTS @name@_TESTS)
  set(labels "@labels@")
  set(timeout @timeout@)
  if(test MATCHES "BadInput")
    list(APPEND labels bad-input)
  endif()
  if(test MATCHES "LongRun")
    list(APPEND labels long)
    set(timeout 3600)
  endif()
  set_tests_properties("${test}" PROPERTIES LABELS "${labels}" TIMEOUT ${timeout}
    ENVIRONMENT "HEADRACE_TOOLS=@CMAKE_SOURCE_DIR@/build/tools;HEADRACE_BIN=@CMAKE_BINARY_DIR@/bin;UBSAN_OPTIONS=print_stacktrace=1")
endforeach()
]=])
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${file})
endfunction()

# x_fuzz.cc defines LLVMFuzzerTestOneInput. In the fuzz preset libFuzzer drives it; everywhere else
# cmake/fuzz_main.cc replays corpus/x/ (seeds and past findings, committed beside the source) and
# some random inputs, so that a fuzzer never stops compiling or working unnoticed.
function(_headrace_fuzzer source)
  get_filename_component(target ${source} NAME_WE)
  string(REGEX REPLACE "_fuzz$" "" name ${target})
  if(name STREQUAL target)
    message(FATAL_ERROR "${CMAKE_CURRENT_SOURCE_DIR}/${source}: a fuzzer's file is named *_fuzz.cc")
  endif()
  add_executable(${target} ${source})
  target_link_libraries(${target} PRIVATE ${ARGN})
  if(NOT TARGET fuzzers)
    add_custom_target(fuzzers)
  endif()
  add_dependencies(fuzzers ${target})
  if(HEADRACE_FUZZ)
    target_link_options(${target} PRIVATE -fsanitize=fuzzer)
    return()
  endif()
  target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/cmake/fuzz_main.cc)
  add_test(NAME fuzz_smoke.${name}
           COMMAND ${target} ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${name})
  set_tests_properties(fuzz_smoke.${name} PROPERTIES LABELS fuzz-smoke TIMEOUT 120)
endfunction()

function(headrace_binary)
  cmake_parse_arguments(arg "" "NAME" "SOURCES;DEPS;LIBS" ${ARGN})
  _headrace_no_leftovers("headrace_binary(${arg_NAME})" ${arg_UNPARSED_ARGUMENTS})
  _headrace_room_targets(deps ${arg_DEPS})
  add_executable(${arg_NAME} ${arg_SOURCES})
  target_include_directories(${arg_NAME} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR})
  target_compile_definitions(${arg_NAME} PRIVATE HEADRACE_VERSION="${PROJECT_VERSION}")
  target_link_libraries(${arg_NAME} PRIVATE ${deps} ${arg_LIBS} Threads::Threads)
  if(HEADRACE_FUZZ)
    set_target_properties(${arg_NAME} PROPERTIES EXCLUDE_FROM_ALL ON)
  endif()
endfunction()

# In the build as well as in ctest: an upward include is cheapest to undo in the minute it is made.
function(headrace_checks)
  foreach(check IN ITEMS check-includes check-fuzz check-faults)
    set(command ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/scripts/${check})
    add_custom_target(${check} ALL COMMAND ${command} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
                      COMMENT "scripts/${check}" VERBATIM)
    add_test(NAME ${check} COMMAND ${command} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${check} PROPERTIES LABELS house TIMEOUT 60)
  endforeach()
endfunction()
