//! Who made the processor: what the instructions it has do not tell.

use std::arch::x86_64::__cpuid;
use std::sync::LazyLock;

/// Whether the processor is one of AMD's, where some instructions cost several times as much as on others.
///
/// The question is put once: in a virtual machine it takes microseconds.
pub(crate) fn amd() -> bool {
    static AMD: LazyLock<bool> = LazyLock::new(|| {
        let leaf = __cpuid(0);
        [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
    });
    *AMD
}
