// SPDX-License-Identifier: Apache-2.0
#include "io/codec/jpeg_whole.h"

#include <array>
#include <cstring>
#include <initializer_list>
#include <string_view>

namespace her2fast::io {
namespace {

using Bytes = std::span<const std::byte>;

constexpr unsigned kSof0 = 0xc0, kSof15 = 0xcf, kDht = 0xc4, kJpg = 0xc8, kDac = 0xcc,
                   kRst0 = 0xd0, kRst7 = 0xd7, kSoi = 0xd8, kEoi = 0xd9, kSos = 0xda,
                   kDqt = 0xdb, kDri = 0xdd, kApp0 = 0xe0, kApp15 = 0xef, kCom = 0xfe;
constexpr std::size_t kQuantizers = 64, kCodeLengths = 16;

unsigned byte_at(Bytes bytes, std::size_t i) {
  return std::to_integer<unsigned>(bytes[i]);
}
unsigned word_at(Bytes bytes, std::size_t i) {
  return byte_at(bytes, i) << 8 | byte_at(bytes, i + 1);
}

/// Where the last definition of each table stands; baseline has two Huffman tables a
/// kind.
struct Tables {
  std::array<Bytes, 4> quantizers;
  std::array<std::array<Bytes, 2>, 2> huffman;  // of DC, of AC: lengths and symbols
  unsigned restart_mcus = 0;
};

struct Frame {
  Bytes sof, sos;
  std::size_t entropy_at = 0;
};

/// Lengths that give a code, and symbols that 8 bits of precision can need.
bool is_code(Bytes lengths, Bytes symbols, bool dc) {
  unsigned code = 0;
  for (std::size_t bits = 1; bits <= kCodeLengths; ++bits) {
    const unsigned count = byte_at(lengths, bits - 1);
    code += count;
    // The code of ones alone is no symbol's.
    if (count != 0 && code >= 1u << bits) return false;
    code *= 2;
  }
  for (const std::byte symbol : symbols) {
    const auto value = std::to_integer<unsigned>(symbol);
    if (dc ? value > 11 : (value & 15) > 10) return false;
  }
  return true;
}

bool take_huffman(Bytes body, Tables& tables) {
  while (!body.empty()) {
    if (body.size() < 1 + kCodeLengths) return false;
    const unsigned kind = byte_at(body, 0) >> 4, id = byte_at(body, 0) & 15;
    std::size_t count = 0;
    for (std::size_t i = 1; i <= kCodeLengths; ++i) count += byte_at(body, i);
    if (kind > 1 || id > 1 || count > 256 || body.size() < 1 + kCodeLengths + count ||
        !is_code(body.subspan(1, kCodeLengths), body.subspan(1 + kCodeLengths, count),
                 kind == 0)) {
      return false;
    }
    tables.huffman[kind][id] = body.subspan(1, kCodeLengths + count);
    body = body.subspan(1 + kCodeLengths + count);
  }
  return true;
}

bool take_quantizers(Bytes body, Tables& tables) {
  while (!body.empty()) {
    const unsigned id = byte_at(body, 0);  // 4 bits of precision before it: 8 bits are 0
    if (id > 3 || body.size() < 1 + kQuantizers) return false;
    tables.quantizers[id] = body.subspan(1, kQuantizers);
    for (const std::byte step : tables.quantizers[id]) {
      if (step == std::byte{0}) return false;
    }
    body = body.subspan(1 + kQuantizers);
  }
  return true;
}

std::string_view other_process(unsigned marker) {
  switch (marker) {
    case 0xc1:
      return "an extended one";
    case 0xc2:
      return "a progressive one";
    case 0xc3:
      return "a lossless one";
    default:
      return "another process";
  }
}

/// Walks the segments to the scan (with `frame`) or to the end of shared tables.
std::string read_segments(Bytes bytes, Tables& tables, Frame* frame) {
  const std::string what = frame == nullptr ? "tables" : "a JPEG stream";
  if (bytes.size() < 2 || word_at(bytes, 0) != (0xff00 | kSoi)) {
    return "need " + what + " that begin" + (frame == nullptr ? "" : "s") +
           " with a start of image";
  }
  const std::string cut = "need " + what + " with whole segments, got a cut or odd one";
  std::size_t at = 2;
  for (;;) {
    std::size_t code = at;
    while (code < bytes.size() && bytes[code] == std::byte{0xff}) ++code;
    if (code == at || code >= bytes.size()) return cut;
    const unsigned marker = byte_at(bytes, code);
    if (marker == kEoi && frame == nullptr) return {};
    if (marker < kSof0 || (marker >= kRst0 && marker <= kEoi) ||
        code + 3 > bytes.size()) {
      return cut;
    }
    const std::size_t size = word_at(bytes, code + 1);
    if (size < 2 || code + 1 + size > bytes.size()) return cut;
    const Bytes body = bytes.subspan(code + 3, size - 2);
    at = code + 1 + size;
    if (marker == kDht) {
      if (!take_huffman(body, tables)) {
        return "need " + what + " with two baseline Huffman codes of each kind";
      }
    } else if (marker == kDqt) {
      if (!take_quantizers(body, tables)) {
        return "need " + what + " with quantizers of 1 to 255";
      }
    } else if (marker == kDri) {
      if (body.size() != 2) return cut;
      tables.restart_mcus = word_at(body, 0);
    } else if ((marker >= kApp0 && marker <= kApp15) || marker == kCom) {
      continue;
    } else if (marker == kDac || frame == nullptr) {
      return cut;
    } else if (marker == kSof0) {
      if (!frame->sof.empty() || body.size() < 6) return cut;
      frame->sof = body;
    } else if (marker < kSof15 && marker != kJpg) {
      return "need a baseline JPEG, got " + std::string(other_process(marker));
    } else if (marker == kSos) {
      frame->sos = body;
      frame->entropy_at = at;
      return {};
    } else {
      return cut;
    }
  }
}

/// One scan's components by the names of the frame's, and the tables they name.
std::string check_frame(const Frame& frame, const Tables& tables, std::int64_t width_px,
                        std::int64_t height_px) {
  const Bytes sof = frame.sof, sos = frame.sos;
  if (sof.empty()) return "need a frame before the scan";
  const unsigned bits = byte_at(sof, 0), components = byte_at(sof, 5);
  if (bits != 8 || components != 3) {
    return "need 3 components of 8 bits, got " + std::to_string(components) + " of " +
           std::to_string(bits) +
           (components == 4   ? " (CMYK or alike)"
            : components == 1 ? " (gray)"
                              : "");
  }
  const std::int64_t height = word_at(sof, 1), width = word_at(sof, 3);
  if (width != width_px || height != height_px) {
    return "need " + std::to_string(width_px) + " x " + std::to_string(height_px) +
           " px, got " + std::to_string(width) + " x " + std::to_string(height);
  }
  if (sof.size() != 15 || sos.empty() || byte_at(sos, 0) != 3 || sos.size() != 10 ||
      word_at(sos, 7) != 63 || byte_at(sos, 9) != 0) {
    return "need one baseline scan of all components";
  }
  for (std::size_t i = 0; i < 3; ++i) {
    if (sos[1 + 2 * i] != sof[6 + 3 * i]) {
      return "need a scan of the frame's components in their order";
    }
    const unsigned sampling = byte_at(sof, 7 + 3 * i),
                   quantizer = byte_at(sof, 8 + 3 * i);
    const bool good = i == 0 ? sampling == 0x11 || sampling == 0x21 || sampling == 0x12 ||
                                   sampling == 0x22
                             : sampling == 0x11;
    if (!good) {
      return "need 4:4:4, 4:2:2, 4:4:0 or 4:2:0, got " + std::to_string(sampling >> 4) +
             " x " + std::to_string(sampling & 15) + " in component " + std::to_string(i);
    }
    const unsigned dc = byte_at(sos, 2 + 2 * i) >> 4, ac = byte_at(sos, 2 + 2 * i) & 15;
    if (quantizer > 3 || dc > 1 || ac > 1 || tables.quantizers[quantizer].empty() ||
        tables.huffman[0][dc].empty() || tables.huffman[1][ac].empty()) {
      return "need the tables that component " + std::to_string(i) +
             " names; pass the file's JPEGTables";
    }
  }
  return {};
}

void put(std::vector<std::byte>& out, std::initializer_list<unsigned> values) {
  for (const unsigned value : values) out.push_back(static_cast<std::byte>(value));
}

void put_segment(std::vector<std::byte>& out, unsigned marker, unsigned first,
                 Bytes body) {
  const auto size = static_cast<unsigned>(body.size() + 3);
  put(out, {0xff, marker, size >> 8, size & 255, first});
  out.insert(out.end(), body.begin(), body.end());
}

void put_header(const Frame& frame, const Tables& tables, std::vector<std::byte>& out) {
  put(out, {0xff, kSoi});
  // JFIF 1.1 without a density: its three components are YCbCr.
  put(out, {0xff, kApp0, 0, 16, 'J', 'F', 'I', 'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0});
  std::array<bool, 4> quantizers{};
  std::array<std::array<bool, 2>, 2> huffman{};
  for (std::size_t i = 0; i < 3; ++i) {
    quantizers[byte_at(frame.sof, 8 + 3 * i)] = true;
    huffman[0][byte_at(frame.sos, 2 + 2 * i) >> 4] = true;
    huffman[1][byte_at(frame.sos, 2 + 2 * i) & 15] = true;
  }
  for (unsigned id = 0; id < 4; ++id) {
    if (quantizers[id]) put_segment(out, kDqt, id, tables.quantizers[id]);
  }
  std::array<std::byte, 14> sof;
  std::memcpy(sof.data(), frame.sof.data() + 1, sof.size());
  std::array<std::byte, 9> sos;
  std::memcpy(sos.data(), frame.sos.data() + 1, sos.size());
  // Names that no decoder takes for letters of a color space.
  for (unsigned i = 0; i < 3; ++i) {
    sof[5 + 3 * i] = sos[2 * i] = static_cast<std::byte>(i + 1);
  }
  put_segment(out, kSof0, 8, sof);
  for (unsigned kind = 0; kind < 2; ++kind) {
    for (unsigned id = 0; id < 2; ++id) {
      if (huffman[kind][id]) {
        put_segment(out, kDht, kind << 4 | id, tables.huffman[kind][id]);
      }
    }
  }
  if (tables.restart_mcus != 0) {
    put(out, {0xff, kDri, 0, 4, tables.restart_mcus >> 8, tables.restart_mcus & 255});
  }
  put_segment(out, kSos, 3, sos);
}

/// Copies to the end of the image; restart markers must be those that its size asks for.
std::string put_entropy(Bytes bytes, std::int64_t restarts, std::vector<std::byte>& out) {
  std::int64_t found = 0;
  while (!bytes.empty()) {
    const void* const at = std::memchr(bytes.data(), 0xff, bytes.size());
    if (at == nullptr) break;
    const auto before =
        static_cast<std::size_t>(static_cast<const std::byte*>(at) - bytes.data());
    out.insert(out.end(), bytes.begin(),
               bytes.begin() + static_cast<std::ptrdiff_t>(before));
    std::size_t code = before;
    while (code < bytes.size() && bytes[code] == std::byte{0xff}) ++code;
    if (code == bytes.size()) break;
    const unsigned marker = byte_at(bytes, code);
    // Bytes that fill up before a marker are left out; a coded 0xff has none.
    if (marker == 0 && code == before + 1) {
      // stays as it is
    } else if (marker >= kRst0 && marker <= kRst7) {
      if (found == restarts || marker != kRst0 + static_cast<unsigned>(found % 8)) {
        return "need restart markers in order, got another at " + std::to_string(found);
      }
      ++found;
    } else if (marker == kEoi) {
      if (found != restarts) {
        return "need " + std::to_string(restarts) + " restart markers, got " +
               std::to_string(found);
      }
      put(out, {0xff, kEoi});
      return {};
    } else {
      return "need one scan, got a marker within it";
    }
    put(out, {0xff, marker});
    bytes = bytes.subspan(code + 1);
  }
  return "need an end of image, got a stream that is cut";
}

}  // namespace

std::string whole_jpeg(Bytes tables_stream, Bytes stream, std::int64_t width_px,
                       std::int64_t height_px, std::vector<std::byte>& out) {
  Tables tables;
  Frame frame;
  std::string wrong;
  if (!tables_stream.empty()) wrong = read_segments(tables_stream, tables, nullptr);
  if (!wrong.empty()) return wrong;
  tables.restart_mcus = 0;  // every image begins without
  wrong = read_segments(stream, tables, &frame);
  if (wrong.empty()) wrong = check_frame(frame, tables, width_px, height_px);
  if (!wrong.empty()) return wrong;
  out.clear();
  out.reserve(1024 + stream.size());
  put_header(frame, tables, out);
  const unsigned sampling = byte_at(frame.sof, 7);
  const std::int64_t mcu_width = 8 * (sampling >> 4), mcu_height = 8 * (sampling & 15);
  const std::int64_t mcus = ((width_px + mcu_width - 1) / mcu_width) *
                            ((height_px + mcu_height - 1) / mcu_height);
  const std::int64_t restarts =
      tables.restart_mcus == 0 ? 0 : (mcus - 1) / tables.restart_mcus;
  return put_entropy(stream.subspan(frame.entropy_at), restarts, out);
}

}  // namespace her2fast::io
