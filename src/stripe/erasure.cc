#include "stripe/erasure.h"

#include <isa-l/erasure_code.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

namespace headrace {
namespace {

constexpr size_t kTableBytes = 32;  // ISA-L expands each coefficient into so many

struct ReedSolomon {
  std::vector<uint8_t> matrix;  // (D + P) × D, the identity above the Cauchy rows
  std::vector<uint8_t> tables;  // of the parity rows
};

// Immutable once made; one set per thread, so that no lock is on the write path.
const ReedSolomon& code_for(Protection protection) {
  static thread_local std::map<std::pair<uint8_t, uint8_t>, ReedSolomon> codes;
  auto [at, fresh] = codes.try_emplace({protection.data, protection.parity});
  if (fresh) {
    int d = protection.data;
    int width = protection.width();
    at->second.matrix.resize(static_cast<size_t>(width) * d);
    gf_gen_cauchy1_matrix(at->second.matrix.data(), width, d);
    at->second.tables.resize(kTableBytes * d * protection.parity);
    if (protection.parity > 0)
      ec_init_tables(d, protection.parity, at->second.matrix.data() + static_cast<size_t>(d) * d,
                     at->second.tables.data());
  }
  return at->second;
}

void check(Protection protection) {
  HR_ASSERT(protection.data > 0);
  HR_ASSERT(uint32_t{protection.data} + protection.parity <= 255);
}

uint8_t* raw(const Buffer& buffer) {
  return reinterpret_cast<uint8_t*>(const_cast<std::byte*>(buffer.data()));
}

// out[i] = Σ rows[i][j] · in[j]
std::vector<Buffer> multiply(const std::vector<uint8_t>& tables, const std::vector<Buffer>& in, size_t rows) {
  size_t size = in.front().size();
  std::vector<Buffer> out;
  std::vector<uint8_t*> sources;
  std::vector<uint8_t*> sinks;
  for (const Buffer& buffer : in) sources.push_back(raw(buffer));
  for (size_t i = 0; i < rows; ++i) {
    out.push_back(Buffer::allocate(size));
    sinks.push_back(raw(out.back()));
  }
  ec_encode_data(static_cast<int>(size), static_cast<int>(in.size()), static_cast<int>(rows),
                 const_cast<uint8_t*>(tables.data()), sources.data(), sinks.data());
  return out;
}

}  // namespace

std::vector<Buffer> encode_parity(Protection protection, const std::vector<Buffer>& data) {
  check(protection);
  HR_ASSERT(data.size() == protection.data);
  for (const Buffer& buffer : data) HR_ASSERT(buffer.size() == data.front().size());
  if (protection.data == 1) return std::vector<Buffer>(protection.parity, data.front());
  if (protection.parity == 0) return {};
  return multiply(code_for(protection).tables, data, protection.parity);
}

Result<std::vector<Buffer>> reconstruct(Protection protection, const std::vector<Buffer>& fragments,
                                        const std::vector<uint8_t>& wanted) {
  check(protection);
  HR_ASSERT(fragments.size() == protection.width());
  size_t d = protection.data;
  std::vector<size_t> rows;  // of the fragments that we compute from
  for (size_t i = 0; i < fragments.size() && rows.size() < d; ++i)
    if (!fragments[i].empty()) rows.push_back(i);
  if (rows.size() < d)
    return Error(Code::kIo, "only " + std::to_string(rows.size()) + " of " + std::to_string(protection.width()) +
                                " fragments are there, " + std::to_string(d) + " are needed");
  for (size_t row : rows) HR_ASSERT(fragments[row].size() == fragments[rows.front()].size());

  std::vector<Buffer> out(wanted.size());
  std::vector<size_t> absent;  // positions in wanted
  for (size_t i = 0; i < wanted.size(); ++i) {
    HR_ASSERT(wanted[i] < fragments.size());
    if (!fragments[wanted[i]].empty()) {
      out[i] = fragments[wanted[i]];
    } else if (d == 1) {
      out[i] = fragments[rows.front()];
    } else {
      absent.push_back(i);
    }
  }
  if (absent.empty()) return out;

  const std::vector<uint8_t>& matrix = code_for(protection).matrix;
  std::vector<uint8_t> present(d * d);
  std::vector<Buffer> in;
  for (size_t i = 0; i < d; ++i) {
    for (size_t j = 0; j < d; ++j) present[i * d + j] = matrix[rows[i] * d + j];
    in.push_back(fragments[rows[i]]);
  }
  std::vector<uint8_t> inverse(d * d);
  // Every square part of a Cauchy matrix can be inverted: failing here would mean that our matrix
  // is wrong.
  HR_ASSERT(gf_invert_matrix(present.data(), inverse.data(), static_cast<int>(d)) == 0);
  // A wanted row of the code, expressed in the present fragments: row · inverse.
  std::vector<uint8_t> coefficients(absent.size() * d);
  for (size_t i = 0; i < absent.size(); ++i) {
    size_t row = wanted[absent[i]];
    for (size_t j = 0; j < d; ++j) {
      uint8_t sum = 0;
      for (size_t k = 0; k < d; ++k) sum ^= gf_mul(matrix[row * d + k], inverse[k * d + j]);
      coefficients[i * d + j] = sum;
    }
  }
  std::vector<uint8_t> tables(kTableBytes * d * absent.size());
  ec_init_tables(static_cast<int>(d), static_cast<int>(absent.size()), coefficients.data(), tables.data());
  std::vector<Buffer> made = multiply(tables, in, absent.size());
  for (size_t i = 0; i < absent.size(); ++i) out[absent[i]] = std::move(made[i]);
  return out;
}

}  // namespace headrace
