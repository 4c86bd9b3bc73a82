# Every dependency, looked for at once, so that one message names all the Debian packages to install.
find_package(Threads REQUIRED)
set(missing)

find_package(fmt QUIET)
if(NOT fmt_FOUND)
  list(APPEND missing libfmt-dev)
endif()

find_package(OpenSSL QUIET COMPONENTS Crypto)
if(NOT OPENSSL_FOUND)
  list(APPEND missing libssl-dev)
endif()

find_package(simdjson QUIET CONFIG)
if(NOT simdjson_FOUND)
  list(APPEND missing libsimdjson-dev)
endif()

find_package(PkgConfig QUIET)
if(NOT PkgConfig_FOUND)
  list(APPEND missing pkg-config liburing-dev)
else()
  pkg_check_modules(URING QUIET IMPORTED_TARGET liburing>=2.3)
  if(NOT URING_FOUND)
    list(APPEND missing liburing-dev)
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
  find_package(Python 3.10 QUIET COMPONENTS Interpreter Development.Module)
  if(NOT Python_FOUND)
    list(APPEND missing python3-dev)
  endif()
endif()

if(missing)
  list(JOIN missing " " packages)
  message(FATAL_ERROR "Inrush needs development packages that are not installed here.\n"
    "On Debian or Ubuntu: apt-get install ${packages}\n")
endif()
