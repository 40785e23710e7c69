// Which entries of a Gram block of samples with several outputs each are wanted.
#pragma once

namespace twophase {

enum class GramOutput { full, trace, diagonal };

}  // namespace twophase
