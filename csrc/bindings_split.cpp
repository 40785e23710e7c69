// The kernels on split operands; they take the name of a matrix unit where others take an instruction set.
#include <algorithm>

#include "bindings.h"
#include "split_gram/split_factored.h"
#include "split_gram/split_gram.h"

namespace twophase {
namespace {

// Each weight counts for as many rows and columns of out as there are to each of its own.
GramWeights gram_weights(const py::array& weights, const GramProblem<float>& problem) {
  require(weights.ndim() == 2 && holds<float>(weights), "expected a matrix of float32 weights");
  require(weights.size() > 0 || problem.n * problem.m == 0, "there are no weights");
  const int64_t rows = std::max<int64_t>(1, weights.shape(0)),
                columns = std::max<int64_t>(1, weights.shape(1));
  require(problem.n % rows == 0 && problem.m % columns == 0, "the weights do not divide out");
  return {static_cast<const float*>(weights.data()), stride<float>(weights, 0), stride<float>(weights, 1),
          problem.n / rows, problem.m / columns};
}

void split_gram_binding(py::array out, const py::array& x, const std::optional<py::array>& y,
                        const std::optional<py::array>& weights, bool all_products, const std::string& unit,
                        int threads) {
  const GramProblem<float> problem = gram_problem<float>(out, x, y);
  const GramWeights scale = weights ? gram_weights(*weights, problem) : GramWeights{};
  const MatrixUnit chosen = parse_matrix_unit(unit);
  const py::gil_scoped_release unlocked;
  split_gram_accumulate(problem, scale, all_products, chosen, threads);
}

void split_factored_gram_binding(py::array out, const py::array& a, const py::array& g,
                                 const std::optional<py::array>& a2, const std::optional<py::array>& g2,
                                 const std::string& output, const std::vector<int64_t>& blocks,
                                 const std::string& unit, int threads) {
  const FactoredGram<float> problem = factored_problem<float>(out, a, g, a2, g2, output);
  const FactoredBlocks sizes = block_sizes(blocks);
  const MatrixUnit chosen = parse_matrix_unit(unit);
  const py::gil_scoped_release unlocked;
  split_factored_gram(problem, sizes, chosen, threads);
}

}  // namespace

void bind_split(py::module_& module) {
  module.def("available_matrix_units", [] { return names_of(available_matrix_units(), matrix_unit_name); });
  module.def("split_gram_", split_gram_binding);
  module.def("split_factored_gram_", split_factored_gram_binding);
}

}  // namespace twophase
