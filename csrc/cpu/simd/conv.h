// A convolution as the kernels see it: inputs packed with their padding, position by position, channels together;
// gradients packed with output channels in lanes. Accumulators stay in registers; nothing is unfolded.
//
// Output channels are taken in blocks. A block is a group, whose inputs are broadcast to lanes; where a group has few
// output channels it is one vector of several groups, and the inputs are spread: packed once for each lane.
#pragma once
#include "elements.h"

namespace fastrw {
struct ConvPlan {
  int64_t C, H, W, O, Ho, Wo, KH, KW, groups;
  int64_t c, o;                   // input and output channels of a group
  int64_t lanes;                  // of a vector at the level that runs
  bool spread;                    // inputs are packed for each lane
  int64_t blocks, block;          // blocks of output channels, output channels of each (the last may have fewer)
  int64_t vectors;                // vectors of output channels in a block
  int64_t unit, width;            // numbers from one packed input channel to the next, and of a packed position
  int64_t Hp, Wp;                 // packed rows and columns: padding included, those never read left out
  int64_t rows, columns;          // output positions as the loops take them; one long row where no gap is between rows
  int64_t row_step, column_step;  // in packed inputs, from one output row or column to the next
  int64_t bands, runs, run, band_step, step;  // taps: runs of `run` adjacent packed numbers (times unit), `step`
                                              // apart within a band, bands `band_step` apart
  int64_t taps, Op;                           // KH KW c, and O rounded up to lanes: a packed weight is [taps][Op]
  int64_t positions;                          // Ho Wo
  int64_t x_size, g_size;                     // numbers of one example's packed block
};

// Tensors as they lie in memory: [example][channel][position] with these strides; one of the last two is 1.
struct ConvStrides {
  int64_t example, channel, position;
};
}  // namespace fastrw
