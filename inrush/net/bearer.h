// Signs with a token: "Authorization: Bearer ...". Any thread; the token may be renewed meanwhile.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "inrush/core/storage.h"
#include "inrush/wire/request.h"

namespace inrush {

class BearerSigner final : public Signer {
 public:
  explicit BearerSigner(std::shared_ptr<const CredentialBox> box) : box_(std::move(box)) {}

  void sign(HttpRequest& request) const override {
    const std::string token = box_->get().token;
    if (!token.empty()) request.headers.emplace_back("Authorization", "Bearer " + token);
  }

 private:
  std::shared_ptr<const CredentialBox> box_;
};

}  // namespace inrush
