// The one exception of Inrush. Its text says what, where, why:
//   read /m/model-3.safetensors [8192, +4194304) via uring: Input/output error
// Codes are the exit codes of the command line. Any thread may create and read one.
#pragma once

#include <exception>
#include <string>

namespace inrush {

enum class ErrorCode : int {
  data = 1,         // the bytes are wrong: malformed, truncated, changed, digest mismatch
  usage = 2,        // the caller asked for something that cannot be
  source = 3,       // the source is unreachable or refuses
  memory = 4,       // over the budget, or out of memory
  cancelled = 130,  // the caller stopped it
};

class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  [[nodiscard]] ErrorCode code() const noexcept { return code_; }
  [[nodiscard]] const char* what() const noexcept override { return message_.c_str(); }
  [[nodiscard]] const std::string& message() const noexcept { return message_; }

 private:
  ErrorCode code_;
  std::string message_;
};

}  // namespace inrush
