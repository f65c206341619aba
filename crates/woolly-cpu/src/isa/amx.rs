//! AMX: eight tile registers of 16 rows x 64 bytes, and products of bfloat16 tiles (Intel SDM, volume 1, chapter 18).
//!
//! The compiler knows no tile registers unless the feature `amx-tile` is enabled for it, and even then it never puts
//! anything else into them: what one `asm!` block leaves in a tile, the next one finds. That, like the tile
//! configuration itself, is state of the thread that lives as long as a [`Tiles`].

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::Avx512;

/// Proof that the processor has AMX for bfloat16 and bytes, that the system saves its state and has granted it to this process,
/// and that AVX-512 BF16 and VBMI are there, with all that [`Avx512`] stands for.
#[derive(Clone, Copy, Debug)]
pub struct Amx(Avx512);

impl Amx {
    /// Returns the proof, or `None` where something is missing; the first call asks the system for permission.
    #[inline]
    pub fn new() -> Option<Self> {
        static USABLE: OnceLock<bool> = OnceLock::new();
        let below = Avx512::new()?;
        USABLE.get_or_init(|| supported() && granted()).then_some(Self(below))
    }

    /// Returns the level below.
    #[inline]
    pub fn avx512(self) -> Avx512 {
        self.0
    }

    /// Configures all tiles of this thread as 16 rows of 64 bytes, until the result is dropped.
    pub fn tiles(self) -> Tiles {
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        config.bytes[..8].fill(64);
        config.rows[..8].fill(16);
        // SAFETY: the token proves that the system lets this process use tiles; the configuration is a valid one.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
        Tiles { thread: PhantomData }
    }

    /// Configures tiles of this thread for products of bytes over `depth` columns (16, 32 or 64), until the result is
    /// dropped.
    pub fn byte_tiles(self, depth: ByteDepth) -> ByteTiles {
        let bytes = depth as u8;
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        config.bytes[..8].fill(64);
        config.rows[..8].fill(16);
        config.bytes[4..6].fill(u16::from(bytes));
        config.rows[6..8].fill(bytes / 4);
        // SAFETY: the token proves that the system lets this process use tiles; the configuration is a valid one.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
        ByteTiles { thread: PhantomData }
    }
}

/// Whether processor and system know tiles, bfloat16 products and the vector instructions used with them.
fn supported() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    // Tile configuration and tile data among the states that the system saves.
    const SAVED: u64 = 3 << 17;
    let vectors = is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vbmi");
    if !vectors || !is_x86_feature_detected!("xsave") {
        return false;
    }
    let tiles = __cpuid_count(7, 0).edx & (BF16 | TILE | INT8) == BF16 | TILE | INT8;
    // SAFETY: `xsave` has just been found.
    tiles && unsafe { _xgetbv(0) } & SAVED == SAVED
}

/// Asks Linux to let this process use tile data, which it must before the first use (`ARCH_REQ_XCOMP_PERM`).
#[cfg(target_os = "linux")]
fn granted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Other systems are not known to grant it.
#[cfg(not(target_os = "linux"))]
fn granted() -> bool {
    false
}

/// The operand of `LDTILECFG`.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

/// The tiles of this thread while they are configured; released when dropped, so that the system need not save them.
///
/// The operations see the tiles as a block of results of two by two tiles, `[2][2][16][16]` floats: tile `(i, j)` is the
/// product of tile `i` of the left and tile `j` of the right operand. A step of the left operand is two tiles of 16 rows
/// and 32 columns, row-major; a step of the right one is two tiles of 16 pairs of rows with 16 columns,
/// `[pair][column][2]`: 2 KiB each.
#[derive(Debug)]
pub struct Tiles {
    thread: PhantomData<*const ()>,
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the instruction only forgets tiles, and tiles exist: `self` is their proof.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

impl Tiles {
    /// bfloat16 numbers in a step of either operand.
    pub const STEP: usize = 2 * 16 * 32;

    /// Floats in a block of results.
    pub const BLOCK: usize = 2 * 2 * 16 * 16;

    /// Sets the results to zero.
    #[inline(always)]
    pub fn zero(&self) {
        // SAFETY: tiles are configured while `self` lives.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                 out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, options(nostack));
        }
    }

    /// Reads the results.
    ///
    /// # Safety
    /// [`BLOCK`](Self::BLOCK) floats are readable.
    #[inline(always)]
    pub unsafe fn load(&self, from: *const f32) {
        // SAFETY: tiles are configured while `self` lives; the caller vouches for the memory.
        unsafe {
            asm!("tileloadd tmm0, [{p} + {s}]", "tileloadd tmm1, [{p} + {s} + 1024]",
                 "tileloadd tmm2, [{p} + {s} + 2048]", "tileloadd tmm3, [{p} + {s} + 3072]",
                 p = in(reg) from, s = in(reg) 64_usize,
                 out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, options(nostack));
        }
    }

    /// Writes the results.
    ///
    /// # Safety
    /// [`BLOCK`](Self::BLOCK) floats are writable.
    #[inline(always)]
    pub unsafe fn store(&self, to: *mut f32) {
        // SAFETY: tiles are configured while `self` lives; the caller vouches for the memory.
        unsafe {
            asm!("tilestored [{p} + {s}], tmm0", "tilestored [{p} + {s} + 1024], tmm1",
                 "tilestored [{p} + {s} + 2048], tmm2", "tilestored [{p} + {s} + 3072], tmm3",
                 p = in(reg) to, s = in(reg) 64_usize, options(nostack));
        }
    }

    /// Adds the product of one step of each operand to the results.
    ///
    /// # Safety
    /// [`STEP`](Self::STEP) numbers are readable at both.
    #[inline(always)]
    pub unsafe fn step(&self, left: *const u16, right: *const u16) {
        // SAFETY: tiles are configured while `self` lives; the caller vouches for the memory.
        unsafe {
            asm!("tileloadd tmm6, [{b} + {s}]", "tileloaddt1 tmm4, [{a} + {s}]", "tdpbf16ps tmm0, tmm4, tmm6",
                 "tileloadd tmm7, [{b} + {s} + 1024]", "tdpbf16ps tmm1, tmm4, tmm7",
                 "tileloaddt1 tmm5, [{a} + {s} + 1024]", "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                 a = in(reg) left, b = in(reg) right, s = in(reg) 64_usize,
                 out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                 out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _, options(nostack));
        }
    }

    /// Adds the product of one step of each operand to the results, both operands being sums of a high and a low part;
    /// the product of the low parts is left out.
    ///
    /// # Safety
    /// [`STEP`](Self::STEP) numbers are readable at all four.
    #[inline(always)]
    pub unsafe fn split_step(&self, [left, left_low]: [*const u16; 2], [right, right_low]: [*const u16; 2]) {
        // SAFETY: tiles are configured while `self` lives; the caller vouches for the memory.
        unsafe {
            asm!("tileloadd tmm4, [{a} + {s}]", "tileloadd tmm6, [{d} + {s}]", "tdpbf16ps tmm0, tmm4, tmm6",
                 "tileloadd tmm7, [{d} + {s} + 1024]", "tdpbf16ps tmm1, tmm4, tmm7",
                 "tileloadd tmm5, [{a} + {s} + 1024]", "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                 "tileloadd tmm6, [{b} + {s}]", "tdpbf16ps tmm0, tmm4, tmm6",
                 "tileloadd tmm7, [{b} + {s} + 1024]", "tdpbf16ps tmm1, tmm4, tmm7",
                 "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                 "tileloadd tmm4, [{c} + {s}]", "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
                 "tileloadd tmm5, [{c} + {s} + 1024]", "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                 a = in(reg) left, b = in(reg) right, c = in(reg) left_low, d = in(reg) right_low, s = in(reg) 64_usize,
                 out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                 out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _, options(nostack));
        }
    }

    /// As [`step`](Self::step) for one tile of the right operand; only the results `(0, 0)` and `(1, 0)` change.
    ///
    /// # Safety
    /// [`STEP`](Self::STEP) numbers are readable at both.
    #[inline(always)]
    pub unsafe fn narrow_step(&self, left: *const u16, right: *const u16) {
        // SAFETY: tiles are configured while `self` lives; the caller vouches for the memory.
        unsafe {
            asm!("tileloadd tmm6, [{b} + {s}]", "tileloaddt1 tmm4, [{a} + {s}]", "tdpbf16ps tmm0, tmm4, tmm6",
                 "tileloaddt1 tmm5, [{a} + {s} + 1024]", "tdpbf16ps tmm2, tmm5, tmm6",
                 a = in(reg) left, b = in(reg) right, s = in(reg) 64_usize,
                 out("tmm0") _, out("tmm2") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, options(nostack));
        }
    }
}

/// Columns that a product of byte tiles sums over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ByteDepth {
    /// A quarter of a tile.
    Sixteen = 16,
    /// Half a tile.
    ThirtyTwo = 32,
    /// All of it.
    SixtyFour = 64,
}

/// The tiles of this thread while they are configured for products of bytes; released when dropped.
#[derive(Debug)]
pub struct ByteTiles {
    thread: PhantomData<*const ()>,
}

impl Drop for ByteTiles {
    fn drop(&mut self) {
        // SAFETY: the instruction only forgets tiles, and tiles exist: `self` is their proof.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

impl ByteTiles {
    /// Writes two products of signed bytes, 16 x 16 sums each: of `left[i]`, 16 rows 64 bytes apart, with `right[i]`,
    /// `[columns / 4][16][4]`.
    ///
    /// # Safety
    /// The rows and columns that the tiles are configured for are readable; `to` has room for 2 KiB.
    #[inline(always)]
    pub unsafe fn products(&self, left: [*const i8; 2], right: [*const i8; 2], to: *mut i32) {
        // SAFETY: tiles are configured while `self` lives; the caller vouches for the memory.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1",
                 "tileloadd tmm6, [{b} + {s}]", "tileloadd tmm4, [{a} + {s}]", "tdpbssd tmm0, tmm4, tmm6",
                 "tileloadd tmm7, [{d} + {s}]", "tileloadd tmm5, [{c} + {s}]", "tdpbssd tmm1, tmm5, tmm7",
                 "tilestored [{to} + {s}], tmm0", "tilestored [{to} + {s} + 1024], tmm1",
                 a = in(reg) left[0], b = in(reg) right[0], c = in(reg) left[1], d = in(reg) right[1],
                 to = in(reg) to, s = in(reg) 64_usize,
                 out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                 options(nostack));
        }
    }
}
