// Intel AMX. Left out of the build where the compiler does not know it (setup.py).
#include "split_gram/amx_tiles.h"
#include "split_gram/avx512_splitter.h"
#include "split_gram/block.h"
#include "split_gram/emulated_tiles.h"
#include "split_gram/pack.h"
#include "split_gram/reduce.h"

namespace twophase {

const SplitKernels split_amx = {AmxTiles::configure, AmxTiles::release, pack_group<Avx512Splitter>,
                                multiply_blocks<AmxTiles>, reduce_chunk};

// Everything of this file but the tile instructions, for processors that lack them.
const SplitKernels split_emulated_avx512 = {EmulatedTiles::configure, EmulatedTiles::release,
                                            pack_group<Avx512Splitter>, multiply_blocks<EmulatedTiles>,
                                            reduce_chunk};

}  // namespace twophase
