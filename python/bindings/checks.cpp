// checks.h: what a format checks and decrypts its tensors by; and what tensorizer's says of them.
#include "inrush/checks.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <array>

#include "inrush/codecs/checksums.h"
#include "inrush/codecs/secretbox.h"
#include "inrush/formats/tensorizer.h"
#include "inrush/load.h"
#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

struct Checks {
  DecoderFactory decoder;
};

Checks make(const Checkpoint& checkpoint, Verify verify, const std::optional<nb::bytearray>& key,
            const std::optional<nb::bytearray>& passphrase,
            std::pair<std::optional<uint64_t>, std::optional<uint64_t>> limits) {
  CheckOptions options;
  options.verify = verify;
  if (key) {
    auto& bytes = options.key.emplace().key.emplace();
    if (key->size() != bytes.size()) {
      throw nb::value_error("a key has 32 bytes");
    }
    std::copy_n(reinterpret_cast<const std::byte*>(key->c_str()), bytes.size(), bytes.begin());
  } else if (passphrase) {
    options.key.emplace().passphrase.assign(passphrase->c_str(), passphrase->size());
  }
  if (options.key && limits.first) options.key->most_operations = *limits.first;
  if (options.key && limits.second) options.key->most_memory = *limits.second;
  const GilReleased released;
  return {checks_of(checkpoint, options)};
}

// Encrypts the caller's memory in place; returns the codes of its chunks, one behind the other.
nb::bytes encrypt_at(uintptr_t address, uint64_t size, const nb::bytearray& key,
                     const nb::bytes& nonce, uint64_t chunk_size) {
  std::array<std::byte, SecretKey::kSize> raw;
  Secretbox box;
  box.chunk_size = chunk_size;
  if (key.size() != raw.size() || nonce.size() != box.nonce.size() || chunk_size == 0) {
    throw nb::value_error("a key has 32 bytes, a nonce 24, a chunk at least one");
  }
  std::copy_n(reinterpret_cast<const std::byte*>(key.c_str()), raw.size(), raw.begin());
  std::copy_n(reinterpret_cast<const std::byte*>(nonce.c_str()), box.nonce.size(),
              box.nonce.begin());
  {
    const GilReleased released;
    auto* const data = reinterpret_cast<std::byte*>(address);  // NOLINT: the caller's memory
    encrypt({data, size}, SecretKey(std::span<const std::byte, SecretKey::kSize>(raw)), box);
    wipe(raw);
  }
  return nb::bytes(box.codes.data(), box.codes.size() * sizeof box.codes.front());
}

std::pair<std::optional<uint32_t>, std::optional<nb::bytes>> checksums(const nb::bytes& before,
                                                                       uintptr_t address,
                                                                       uint64_t size, bool crc32,
                                                                       bool sha256) {
  Checksums found;
  {
    const GilReleased released;
    const auto first = std::as_bytes(std::span(before.c_str(), before.size()));
    // NOLINTNEXTLINE: the caller's memory
    const std::span data(reinterpret_cast<const std::byte*>(address), size);
    found = checksums_of(first, data, crc32, sha256);
  }
  std::optional<nb::bytes> digest;
  if (found.sha256) digest.emplace(found.sha256->data(), found.sha256->size());
  return {found.crc32, std::move(digest)};
}

nb::bytearray derive(const nb::bytearray& passphrase, const nb::bytes& salt, uint64_t operations,
                     uint64_t memory) {
  std::array<std::byte, 16> raw;
  if (salt.size() != raw.size()) throw nb::value_error("a salt has 16 bytes");
  std::copy_n(reinterpret_cast<const std::byte*>(salt.c_str()), raw.size(), raw.begin());
  KeyOptions copy;  // the caller's may be wiped or resized meanwhile
  copy.passphrase.assign(passphrase.c_str(), passphrase.size());
  SecretKey key;
  {
    const GilReleased released;
    key = derive_key(copy.passphrase, raw, {operations, memory});
  }
  return nb::bytearray(key.bytes().data(), key.bytes().size());
}

void add(LoadOptions& options, const Checks& checks) {
  options.decoder = in_turn(checks.decoder, std::move(options.decoder));
}

// Where an index has its lines: begins[i] to begins[i + 1].
struct Lines {
  explicit Lines(const nb::bytes& index, uint64_t count, bool tagged) {
    const auto bytes = std::as_bytes(std::span(index.c_str(), index.size()));
    begins.push_back(0);
    for (const TensorsLine& line : tensors_lines(bytes, count, tagged)) {
      begins.push_back(line.end);
      flat = flat && !line.nested;
      if (line.nested) {
        paths.append(nb::bytes(line.path.data(), line.path.size()));
      } else {
        const auto size = static_cast<Py_ssize_t>(line.path.size());
        const auto text = nb::steal(PyUnicode_DecodeUTF8(line.path.data(), size, nullptr));
        if (!text.is_valid()) throw nb::python_error();
        paths.append(text);
      }
    }
  }

  std::pair<uint64_t, uint64_t> place(uint64_t i) const { return {begins.at(i), begins.at(i + 1)}; }

  nb::list paths;
  std::vector<uint64_t> begins;
  bool flat = true;
};

}  // namespace

void bind_checks(nb::module_& module) {
  module.def("encrypt", &encrypt_at, nb::arg("address"), nb::arg("nbytes"), nb::arg("key"),
             nb::arg("nonce"), nb::arg("chunk_size"),
             "Encrypt memory in place by libsodium's secretbox; its codes, 16 bytes a chunk.");
  module.def("checksums", &checksums, nb::arg("before"), nb::arg("address"), nb::arg("nbytes"),
             nb::arg("crc32"), nb::arg("sha256"),
             "CRC-32 and SHA-256 of bytes and then of memory; None for what is not wanted.");
  nb::class_<Lines>(module, "TensorsLines", "The index of a .tensors file that was read before.")
      .def(nb::init<const nb::bytes&, uint64_t, bool>(), nb::arg("index"), nb::arg("count"),
           nb::arg("tagged"))
      .def_prop_ro(
          "paths", [](const Lines& lines) { return lines.paths; },
          nb::sig("def paths(self) -> list[str | bytes]"),
          "In order; those that are structures as bytes.")
      .def_ro("flat", &Lines::flat, "Whether no path is a structure.")
      .def("place", &Lines::place, nb::arg("i"), "Where a line begins and ends.");
  module.def("derive_key", &derive, nb::arg("passphrase"), nb::arg("salt"), nb::arg("operations"),
             nb::arg("memory"), "32 bytes by Argon2id.");
  nb::enum_<Verify>(module, "Verify")
      .value("none", Verify::none)
      .value("crc", Verify::crc)
      .value("full", Verify::full);
  module.def(
      "has_checksums",
      [](const Checkpoint& checkpoint) {
        const GilReleased released;
        return has_checksums(checkpoint);
      },
      nb::arg("checkpoint"), "Whether the checkpoint's files have checksums of their own.");
  module.def(
      "check_unused",
      [](const Checkpoint& checkpoint) {
        heedful([&, stopped = heeding_signals()] { check_unused(checkpoint, stopped); });
      },
      nb::arg("checkpoint"), "Read what has a checksum and no tensor is made of, and compare it.");
  nb::class_<Checks>(module, "Checks", "Checksums and keys of one checkpoint's tensors.")
      .def_static("make", &make, nb::arg("checkpoint"), nb::arg("verify"),
                  nb::arg("key").none() = nb::none(), nb::arg("passphrase").none() = nb::none(),
                  nb::arg("limits") = std::pair<std::optional<uint64_t>, std::optional<uint64_t>>(),
                  "A key has 32 bytes. `limits`: operations and bytes that a file may ask for to "
                  "derive one.")
      .def(
          "add_to", [](const Checks& checks, LoadOptions& options) { add(options, checks); },
          nb::arg("options"), "Have a load check and decrypt before anything else sees the bytes.");
}

}  // namespace inrush::python
