#include "inrush/formats/guess.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace inrush {
namespace {

using namespace std::string_view_literals;

struct Row {
  std::string_view begins;
  std::string_view what;
};

constexpr std::array kRows{
    Row{"version "sv, "a git-LFS pointer, not the file itself: run git lfs pull"},
    Row{"<!doctype"sv, "an HTML page: what a server sent in place of the file"},
    Row{"<html"sv, "an HTML page: what a server sent in place of the file"},
    Row{"<?xml"sv, "an XML answer: what a server sent in place of the file"},
    Row{"<"sv, "markup: what a server sent in place of the file"},
    Row{"PK\x03\x04"sv, "a zip archive, as torch.save writes: convert it to safetensors"},
    Row{"\x80\x02"sv, "a Python pickle, as torch.save writes: convert it to safetensors"},
    Row{"\x80\x03"sv, "a Python pickle: convert it to safetensors"},
    Row{"\x80\x04"sv, "a Python pickle: convert it to safetensors"},
    Row{"\x80\x05"sv, "a Python pickle: convert it to safetensors"},
    Row{"GGUF"sv, "a GGUF file"},
    Row{"\x89HDF"sv, "an HDF5 file"},
    Row{"\x93NUMPY"sv, "a NumPy array"},
    Row{"|TZR|"sv, "a Tensorizer file"},
    Row{"\x1f\x8b"sv, "gzip-compressed: unpack it"},
    Row{"\x28\xb5\x2f\xfd"sv, "zstd-compressed: unpack it"},
    Row{"{"sv, "JSON"},
    Row{"["sv, "JSON"},
    Row{"\0\0\0\0\0\0\0\0"sv, "zeros: space that was reserved and never written"},
};

}  // namespace

std::string seems_to_be(std::span<const std::byte> head) {
  std::string text(reinterpret_cast<const char*>(head.data()), std::min<size_t>(head.size(), 32));
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z' && text.front() == '<') c = static_cast<char>(c - 'A' + 'a');
  }
  for (const auto& row : kRows) {
    if (text.starts_with(row.begins)) return "; it seems to be " + std::string(row.what);
  }
  return {};
}

}  // namespace inrush
