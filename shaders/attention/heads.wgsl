// Implements interface `heads`: what the attention programs for a part of the cache share.
override HEAD_DIM: u32;
override GROUP: u32;      // query heads that share a key head
override FIRST_HEAD: u32; // first query head of this part of the cache
override STRIDE: u32;     // values from one row of qkv to the next
override Y_STRIDE: u32;   // values from one row of y to the next
#import step
#import reach
#import queries
#import kv_read
@group(1) @binding(2) var<storage, read> vectors: array<f32>; // [0] scale, [1] window, 0 for none
@group(1) @binding(3) var<storage, read_write> y: array<f32>;

const LOWEST = -3.0e38; // below every score
override FOURS: u32 = (HEAD_DIM + 3u) / 4u; // vec4s in a head
