// The unit in plain C++: the oracle of the real one, and what tests run on any processor.
#include "split_gram/block.h"
#include "split_gram/emulated_tiles.h"
#include "split_gram/pack.h"
#include "split_gram/reduce.h"

namespace twophase {

const SplitKernels split_emulated = {EmulatedTiles::configure, EmulatedTiles::release,
                                     pack_group<PlainSplitter>, multiply_blocks<EmulatedTiles>, reduce_chunk};

}  // namespace twophase
