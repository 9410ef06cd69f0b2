//! The memory node of a mapping (set_mempolicy(2), mbind(2)).

use std::io;

use vm_memory::MmapRegion;

/// Words of a set of nodes. The kernel has at most 1,024 nodes.
const WORDS: usize = 16;

/// Prefers pages of the memory node `node` for a mapping none of whose pages exist yet. Nodes from
/// 1,024 on do not exist.
///
/// # Errors
/// If the kernel has no memory nodes, or does not let the process choose one.
pub(super) fn prefer(region: &MmapRegion<()>, node: u32) -> io::Result<()> {
    let mut nodes: [libc::c_ulong; WORDS] = [0; WORDS];
    let word = nodes.get_mut(node as usize / 64).ok_or(io::ErrorKind::InvalidInput)?;
    *word = 1 << (node % 64);
    // The kernel counts one bit less than this.
    let bits = WORDS * 64 + 1;
    // SAFETY: the range is that of the mapping, whose contents do not change, and `nodes` has more
    // bits than the kernel reads.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            region.as_ptr(),
            region.size(),
            libc::MPOL_PREFERRED,
            nodes.as_ptr(),
            bits,
            0,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
