// Our declarations of cuFile against the toolkit's own header: compiled where cufile.h is
// installed.
#include <cufile.h>
#include <gtest/gtest.h>

#include <cstddef>

#include "inrush/shim/cufile_table.h"
#include "tests/shim/alike.h"

namespace inrush::vendor {
namespace {

using test::Alike;

static_assert(sizeof(FileStatus) == sizeof(CUfileError_t));
static_assert(offsetof(FileStatus, cuda) == offsetof(CUfileError_t, cu_err));
static_assert(kCuFileBase == CUFILEOP_BASE_ERR);
static_assert(kCuFileAlreadyOpen == CU_FILE_DRIVER_ALREADY_OPEN);
static_assert(sizeof(FileDescription) == sizeof(CUfileDescr_t));
static_assert(offsetof(FileDescription, fd) == offsetof(CUfileDescr_t, handle));
static_assert(offsetof(FileDescription, operations) == offsetof(CUfileDescr_t, fs_ops));
static_assert(kFileDescriptor == CU_FILE_HANDLE_TYPE_OPAQUE_FD);
static_assert(sizeof(FileProperties) >= sizeof(CUfileDrvProps_t));
static_assert(offsetof(FileProperties, control) == offsetof(CUfileDrvProps_t, nvfs.dcontrolflags));
static_assert(offsetof(FileProperties, batch) == offsetof(CUfileDrvProps_t, max_batch_io_size));
static_assert(kControlCompatible == 1U << CU_FILE_ALLOW_COMPAT_MODE);
static_assert(kParameterCompatible == CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE);
static_assert(kParameterForced == CUFILE_PARAM_FORCE_COMPAT_MODE);
static_assert(Alike<decltype(FileTable::open), decltype(cuFileDriverOpen)>::value);
static_assert(Alike<decltype(FileTable::version), decltype(cuFileGetVersion)>::value);
static_assert(Alike<decltype(FileTable::properties), decltype(cuFileDriverGetProperties)>::value);
static_assert(Alike<decltype(FileTable::set_parameter), decltype(cuFileSetParameterBool)>::value);
static_assert(Alike<decltype(FileTable::get_parameter), decltype(cuFileGetParameterBool)>::value);
static_assert(Alike<decltype(FileTable::handle_register), decltype(cuFileHandleRegister)>::value);
static_assert(Alike<decltype(FileTable::memory_register), decltype(cuFileBufRegister)>::value);
static_assert(Alike<decltype(FileTable::memory_deregister), decltype(cuFileBufDeregister)>::value);
static_assert(Alike<decltype(FileTable::read), decltype(cuFileRead)>::value);

TEST(Toolkit, our_declarations_of_cufile_are_those_of_its_header) { SUCCEED(); }

}  // namespace
}  // namespace inrush::vendor
