//! [`Lanes`] for 64-bit ARM processors, all of which have NEON.

#![allow(clippy::missing_safety_doc)] // `Lanes` has the safety section for all of its functions

use super::lanes::{Job, Lanes, Two};
use std::arch::{aarch64::*, asm};

#[target_feature(enable = "dotprod")]
pub fn dotprod<J: Job>(job: J) -> J::Out {
    job.run::<Neon<true>>()
}

/// Two registers of four lanes. The form with `DOT`, which uses the instruction for products of bytes, may
/// only be used inside [`dotprod`].
pub struct Neon<const DOT: bool>;

// SAFETY: loads and stores are unaligned and of as many bytes as the trait says; the assembly accesses no
// memory.
impl<const DOT: bool> Lanes for Neon<DOT> {
    const N: usize = 8;
    // There are 32 registers, but of four lanes: 16 pairs.
    const MANY_REGISTERS: bool = false;
    type V = [float32x4_t; 2];
    type Eight = Self;
    type Pair = Two<Self>;
    #[inline(always)]
    fn splat(value: f32) -> Self::V {
        unsafe { [vdupq_n_f32(value); 2] }
    }
    #[inline(always)]
    unsafe fn load(values: *const f32) -> Self::V {
        unsafe { [vld1q_f32(values), vld1q_f32(values.add(4))] }
    }
    #[inline(always)]
    unsafe fn store([low, high]: Self::V, to: *mut f32) {
        unsafe {
            vst1q_f32(to, low);
            vst1q_f32(to.add(4), high);
        }
    }
    #[inline(always)]
    unsafe fn f16(bits: *const u8) -> Self::V {
        unsafe {
            let halves = vld1q_u8(bits);
            let (low, high): (float32x4_t, float32x4_t);
            // The intrinsics need a type that is not stable in Rust yet.
            asm!("fcvtl {low:v}.4s, {halves:v}.4h", "fcvtl2 {high:v}.4s, {halves:v}.8h",
                halves = in(vreg) halves, low = out(vreg) low, high = lateout(vreg) high,
                options(pure, nomem, nostack));
            [low, high]
        }
    }
    #[inline(always)]
    unsafe fn bf16(bits: *const u8) -> Self::V {
        unsafe {
            let halves = vreinterpretq_u16_u8(vld1q_u8(bits));
            [
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(halves))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(halves))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn bytes(bytes: *const u8) -> Self::V {
        unsafe {
            let words = vmovl_u8(vld1_u8(bytes));
            [vcvtq_f32_u32(vmovl_u16(vget_low_u16(words))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(words)))]
        }
    }
    #[inline(always)]
    fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }
    #[inline(always)]
    fn add(a: Self::V, b: Self::V) -> Self::V {
        unsafe { [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    fn sum([low, high]: Self::V) -> f32 {
        unsafe { vaddvq_f32(vaddq_f32(low, high)) }
    }
    #[inline(always)]
    unsafe fn byte_products<const SIGNED: bool>(u: *const u8, x: *const i8) -> Self::V {
        // Unsigned factors are at most 127, so they can be read as signed.
        unsafe { [fours::<DOT>(u.cast(), x), fours::<DOT>(u.add(16).cast(), x.add(16))] }
    }
}

/// Σ a · b over each group of four of sixteen bytes.
#[inline(always)]
unsafe fn fours<const DOT: bool>(a: *const i8, b: *const i8) -> float32x4_t {
    unsafe {
        let (a, b) = (vld1q_s8(a), vld1q_s8(b));
        let sums = if DOT {
            let mut sums = vdupq_n_s32(0);
            // The intrinsic is not stable in Rust yet.
            asm!("sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b", sums = inout(vreg) sums, a = in(vreg) a,
                b = in(vreg) b, options(pure, nomem, nostack));
            sums
        } else {
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
            let high = vpaddlq_s16(vmull_high_s8(a, b));
            vpaddq_s32(low, high)
        };
        vcvtq_f32_s32(sums)
    }
}
