//! Loops that do nothing but multiply and add, in assembly: what a compiler makes of such a loop is anything but certain.
//!
//! Operands are ordinary numbers, since zeros draw less power and may be faster than any real product.

use std::arch::x86_64::__cpuid_count;
use std::arch::{asm, is_x86_feature_detected};

use super::Unit;
use crate::isa::Amx;

/// Returns the loop of a unit, or `None` where the processor lacks it or the system refuses it.
pub(super) fn spin(unit: Unit) -> Option<fn(u64)> {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
    let (there, spin): (bool, fn(u64)) = match unit {
        Unit::Avx2F32 => (avx2, avx2_f32),
        Unit::Avx2Int8 => (avx2, avx2_int8),
        Unit::AvxVnniInt8 => (avx2 && is_x86_feature_detected!("avxvnni"), avx_vnni_int8),
        Unit::Avx512F32 => (avx512, avx512_f32),
        Unit::Avx512Int8 => (avx512, avx512_int8),
        Unit::AmxInt8 => (tiles_of_bytes(), amx_int8),
        Unit::AmxBf16 => (Amx::new().is_some(), amx_bf16),
    };
    there.then_some(spin)
}

/// Operands of float loops: sums tend to 1 and stay ordinary numbers.
const FLOATS: [f32; 2] = [0.5, 0.5];
/// Operands of integer loops.
const BYTES: [u32; 2] = [0x1305_0b07, 0x0203_0d05];

/// Makes a function that repeats instructions on vector registers: accumulators from 0 on, operands in 14 and 15.
macro_rules! vector_loop {
    ($name:ident, $features:literal, $operands:ident, $load:literal, $register:literal, $($line:literal)+) => {
        fn $name(rounds: u64) {
            #[target_feature(enable = $features)]
            fn run(rounds: u64) {
                // SAFETY: only registers are changed, all of them named here, and two operands are read from a constant;
                // `rounds` is at least 1, so that the counter ends at 0.
                unsafe {
                    asm!(
                        concat!($load, " ", $register, "14, dword ptr [{x}]"),
                        concat!($load, " ", $register, "15, dword ptr [{x} + 4]"),
                        "2:",
                        $($line,)+
                        "dec {n}",
                        "jnz 2b",
                        x = in(reg) $operands.as_ptr(),
                        n = inout(reg) rounds.max(1) => _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                        out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                        options(nostack, readonly),
                    );
                }
            }
            // SAFETY: `spin` hands this function out only where the features were found.
            unsafe { run(rounds) }
        }
    };
}

vector_loop!(avx2_f32, "avx2,fma", FLOATS, "vbroadcastss", "ymm",
    "vfmadd213ps ymm0, ymm14, ymm15" "vfmadd213ps ymm1, ymm14, ymm15" "vfmadd213ps ymm2, ymm14, ymm15"
    "vfmadd213ps ymm3, ymm14, ymm15" "vfmadd213ps ymm4, ymm14, ymm15" "vfmadd213ps ymm5, ymm14, ymm15"
    "vfmadd213ps ymm6, ymm14, ymm15" "vfmadd213ps ymm7, ymm14, ymm15" "vfmadd213ps ymm8, ymm14, ymm15"
    "vfmadd213ps ymm9, ymm14, ymm15" "vfmadd213ps ymm10, ymm14, ymm15" "vfmadd213ps ymm11, ymm14, ymm15");

vector_loop!(avx512_f32, "avx512f", FLOATS, "vbroadcastss", "zmm",
    "vfmadd213ps zmm0, zmm14, zmm15" "vfmadd213ps zmm1, zmm14, zmm15" "vfmadd213ps zmm2, zmm14, zmm15"
    "vfmadd213ps zmm3, zmm14, zmm15" "vfmadd213ps zmm4, zmm14, zmm15" "vfmadd213ps zmm5, zmm14, zmm15"
    "vfmadd213ps zmm6, zmm14, zmm15" "vfmadd213ps zmm7, zmm14, zmm15" "vfmadd213ps zmm8, zmm14, zmm15"
    "vfmadd213ps zmm9, zmm14, zmm15" "vfmadd213ps zmm10, zmm14, zmm15" "vfmadd213ps zmm11, zmm14, zmm15");

vector_loop!(avx512_int8, "avx512f,avx512vnni", BYTES, "vpbroadcastd", "zmm",
    "vpdpbusd zmm0, zmm14, zmm15" "vpdpbusd zmm1, zmm14, zmm15" "vpdpbusd zmm2, zmm14, zmm15"
    "vpdpbusd zmm3, zmm14, zmm15" "vpdpbusd zmm4, zmm14, zmm15" "vpdpbusd zmm5, zmm14, zmm15"
    "vpdpbusd zmm6, zmm14, zmm15" "vpdpbusd zmm7, zmm14, zmm15" "vpdpbusd zmm8, zmm14, zmm15"
    "vpdpbusd zmm9, zmm14, zmm15" "vpdpbusd zmm10, zmm14, zmm15" "vpdpbusd zmm11, zmm14, zmm15");

vector_loop!(avx2_int8, "avx2", BYTES, "vpbroadcastd", "ymm",
    "vpmaddubsw ymm8, ymm14, ymm15" "vpaddw ymm0, ymm0, ymm8"
    "vpmaddubsw ymm9, ymm14, ymm15" "vpaddw ymm1, ymm1, ymm9"
    "vpmaddubsw ymm10, ymm14, ymm15" "vpaddw ymm2, ymm2, ymm10"
    "vpmaddubsw ymm11, ymm14, ymm15" "vpaddw ymm3, ymm3, ymm11"
    "vpmaddubsw ymm12, ymm14, ymm15" "vpaddw ymm4, ymm4, ymm12"
    "vpmaddubsw ymm13, ymm14, ymm15" "vpaddw ymm5, ymm5, ymm13"
    "vpmaddubsw ymm8, ymm14, ymm15" "vpaddw ymm0, ymm0, ymm8"
    "vpmaddubsw ymm9, ymm14, ymm15" "vpaddw ymm1, ymm1, ymm9"
    "vpmaddubsw ymm10, ymm14, ymm15" "vpaddw ymm2, ymm2, ymm10"
    "vpmaddubsw ymm11, ymm14, ymm15" "vpaddw ymm3, ymm3, ymm11"
    "vpmaddubsw ymm12, ymm14, ymm15" "vpaddw ymm4, ymm4, ymm12"
    "vpmaddubsw ymm13, ymm14, ymm15" "vpaddw ymm5, ymm5, ymm13");

vector_loop!(avx_vnni_int8, "avx2,avxvnni", BYTES, "vpbroadcastd", "ymm",
    "{{vex}} vpdpbusd ymm0, ymm14, ymm15" "{{vex}} vpdpbusd ymm1, ymm14, ymm15"
    "{{vex}} vpdpbusd ymm2, ymm14, ymm15" "{{vex}} vpdpbusd ymm3, ymm14, ymm15"
    "{{vex}} vpdpbusd ymm4, ymm14, ymm15" "{{vex}} vpdpbusd ymm5, ymm14, ymm15"
    "{{vex}} vpdpbusd ymm6, ymm14, ymm15" "{{vex}} vpdpbusd ymm7, ymm14, ymm15"
    "{{vex}} vpdpbusd ymm8, ymm14, ymm15" "{{vex}} vpdpbusd ymm9, ymm14, ymm15"
    "{{vex}} vpdpbusd ymm10, ymm14, ymm15" "{{vex}} vpdpbusd ymm11, ymm14, ymm15");

/// Makes a function that repeats four independent products of tiles: two by two operands.
macro_rules! tile_loop {
    ($name:ident, $instruction:literal, $operand:expr) => {
        fn $name(rounds: u64) {
            let Some(amx) = Amx::new() else { return };
            let operand: [u32; 256] = [$operand; 256];
            let tiles = amx.tiles();
            // SAFETY: `tiles` keeps all eight configured as 16 rows of 64 bytes; four are loaded from 1024 bytes at a stride
            // of 64. `rounds` is at least 1, so that the counter ends at 0.
            unsafe {
                asm!(
                    "tileloadd tmm4, [{x} + {stride}]",
                    "tileloadd tmm5, [{x} + {stride}]",
                    "tileloadd tmm6, [{x} + {stride}]",
                    "tileloadd tmm7, [{x} + {stride}]",
                    "2:",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    concat!($instruction, " tmm1, tmm4, tmm7"),
                    concat!($instruction, " tmm2, tmm5, tmm6"),
                    concat!($instruction, " tmm3, tmm5, tmm7"),
                    "dec {n}",
                    "jnz 2b",
                    x = in(reg) operand.as_ptr(),
                    stride = in(reg) 64_usize,
                    n = inout(reg) rounds.max(1) => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly),
                );
            }
            drop(tiles);
        }
    };
}

tile_loop!(amx_int8, "tdpbssd", BYTES[0]);
// Two bfloat16 of 0.5.
tile_loop!(amx_bf16, "tdpbf16ps", 0x3f00_3f00);

/// Whether tiles can hold bytes: CPUID leaf 7, EDX bit 25.
fn tiles_of_bytes() -> bool {
    Amx::new().is_some() && __cpuid_count(7, 0).edx & 1 << 25 != 0
}
