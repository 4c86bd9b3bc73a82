# Every dependency, looked for at once, so that one message names all the Debian packages to install.
find_package(Threads REQUIRED)
set(missing)
if(INRUSH_PORTABLE)
  set(OPENSSL_USE_STATIC_LIBS TRUE)
endif()

find_package(fmt QUIET)
if(NOT fmt_FOUND)
  list(APPEND missing libfmt-dev)
endif()

# Its header only: the library is looked for when a remote place is opened (inrush/shim/curl.cpp).
find_path(CURL_INCLUDE_DIR curl/curl.h)
if(NOT CURL_INCLUDE_DIR)
  list(APPEND missing libcurl4-openssl-dev)
endif()

find_package(OpenSSL QUIET COMPONENTS Crypto SSL)
if(NOT OPENSSL_FOUND)
  list(APPEND missing libssl-dev)
endif()

if(NOT INRUSH_PORTABLE)
  find_package(simdjson QUIET CONFIG)
  if(NOT simdjson_FOUND)
    list(APPEND missing libsimdjson-dev)
  endif()
endif()

find_package(PkgConfig QUIET)
if(NOT PkgConfig_FOUND)
  list(APPEND missing pkg-config liburing-dev libsodium-dev)
else()
  pkg_check_modules(URING QUIET IMPORTED_TARGET liburing>=2.3)
  if(NOT URING_FOUND)
    list(APPEND missing liburing-dev)
  endif()
  pkg_check_modules(SODIUM QUIET IMPORTED_TARGET libsodium)
  if(NOT SODIUM_FOUND)
    list(APPEND missing libsodium-dev)
  endif()
endif()

if(INRUSH_TESTS)
  find_package(GTest QUIET)
  if(NOT GTest_FOUND)
    list(APPEND missing libgtest-dev)
  endif()
endif()

if(INRUSH_PYTHON)
  # Never the newest Python on the machine, but the one that asks: the wheel's, or the venv's.
  set(Python_FIND_STRATEGY LOCATION)
  set(Python_FIND_VIRTUALENV FIRST)
  find_package(Python 3.10 QUIET
    COMPONENTS Interpreter Development.Module ${SKBUILD_SABI_COMPONENT})
  if(NOT Python_FOUND)
    list(APPEND missing python3-dev)
  endif()
endif()

if(missing)
  list(JOIN missing " " packages)
  message(FATAL_ERROR "Inrush needs development packages that are not installed here.\n"
    "On Debian or Ubuntu: apt-get install ${packages}\n")
endif()

# What every layer links. A wheel must not ask for libraries of the machine it lands on.
set(third_party
  fmt::fmt OpenSSL::SSL OpenSSL::Crypto PkgConfig::SODIUM PkgConfig::URING simdjson::simdjson)
if(INRUSH_PORTABLE)
  if(NOT EXISTS "${INRUSH_SIMDJSON_SOURCE}/simdjson.cpp")
    message(FATAL_ERROR "INRUSH_PORTABLE: INRUSH_SIMDJSON_SOURCE has no simdjson.cpp")
  endif()
  add_library(simdjson_static STATIC ${INRUSH_SIMDJSON_SOURCE}/simdjson.cpp)
  target_include_directories(simdjson_static SYSTEM PUBLIC ${INRUSH_SIMDJSON_SOURCE})
  target_compile_options(simdjson_static PRIVATE -w)
  find_library(URING_ARCHIVE liburing.a REQUIRED)
  find_library(SODIUM_ARCHIVE libsodium.a REQUIRED)
  set(third_party
    fmt::fmt-header-only OpenSSL::SSL OpenSSL::Crypto ${SODIUM_ARCHIVE} ${URING_ARCHIVE} simdjson_static)
  # libgcc stays shared: as a part of this it asks for _dl_find_object of glibc 2.35.
  add_link_options(-static-libstdc++ -Wl,--exclude-libs,ALL -Wl,--gc-sections)
endif()
