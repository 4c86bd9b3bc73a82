# Headers that are parsed once a build. Each file still includes what it uses: the presets of the
# sanitizers build without these.
#
# precompile(TARGET OWNER HEADER...): TARGET shares what OWNER has of these headers, or is it.
function(precompile target owner)
  if(NOT INRUSH_PCH)
    return()
  endif()
  if(target STREQUAL owner)
    list(TRANSFORM ARGN PREPEND ${PROJECT_SOURCE_DIR}/)
    target_precompile_headers(${target} PRIVATE ${ARGN})
  else()
    target_precompile_headers(${target} REUSE_FROM ${owner})
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -fpch-preprocess)  # ccache asks for it
  endif()
endfunction()
