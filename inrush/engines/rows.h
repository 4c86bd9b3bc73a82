// What the engines' files give to the table: a maker each, and where the kernel has a say in it
// also the reason why it may not be used (empty: it may).
#pragma once

#include <memory>
#include <string>

#include "inrush/core/engine.h"

namespace inrush {

std::unique_ptr<Engine> make_uring(const EngineOptions& options);
std::string uring_unusable();

std::unique_ptr<Engine> make_aio(const EngineOptions& options);
std::string aio_unusable();

std::unique_ptr<Engine> make_pread(const EngineOptions& options);

std::unique_ptr<Engine> make_mmap(const EngineOptions& options);

std::unique_ptr<Engine> make_http(const EngineOptions& options);

std::unique_ptr<Engine> make_cache(const EngineOptions& options);

std::unique_ptr<Engine> make_redis(const EngineOptions& options);

std::unique_ptr<Engine> make_cufile(const EngineOptions& options);

}  // namespace inrush
