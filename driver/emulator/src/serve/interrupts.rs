//! Interrupt delivery through eventfds of the client, by VFIO interrupt index.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_AUTOMASKED, VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_MASKABLE,
    VFIO_IRQ_INFO_NORESIZE, VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_ACTION_TYPE_MASK, VFIO_IRQ_SET_ACTION_UNMASK, VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_DATA_NONE, VFIO_IRQ_SET_DATA_TYPE_MASK, VFIO_PCI_INTX_IRQ_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_NUM_IRQS,
};
use vfio_user::IrqInfo;

/// One interrupt: its eventfd and its mask.
#[derive(Debug, Default)]
struct Line {
    event: Option<File>,
    masked: bool,
    pending: bool,
}

impl Line {
    /// Signals the eventfd, now or when the interrupt is unmasked.
    fn raise(&mut self, held: bool) {
        let Some(event) = &mut self.event else { return };
        if self.masked || held {
            self.pending = true;
            return;
        }
        self.pending = false;
        // The client's descriptor may be any file, so a write that would block is skipped. An
        // eventfd that is full has woken its reader anyway.
        let mut ready = [PollFd::from_borrowed_fd(event.as_fd(), PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if matches!(rustix::event::poll(&mut ready, Some(&now)), Ok(1))
            && let Err(error) = event.write_all(&1u64.to_ne_bytes())
        {
            log::warn!("interrupt not delivered: {error}");
        }
    }

    fn retry(&mut self, held: bool) {
        if self.pending {
            self.raise(held);
        }
    }
}

/// The interrupts of the device: INTx and MSI-X vectors.
#[derive(Debug)]
pub(crate) struct Interrupts {
    intx: Line,
    msix: Vec<Line>,
}

impl Interrupts {
    pub(crate) fn new(vectors: u16) -> Self {
        let msix = (0..vectors).map(|_| Line::default()).collect();
        Self { intx: Line::default(), msix }
    }

    /// Describes each interrupt index (`VFIO_USER_DEVICE_GET_IRQ_INFO`).
    pub(crate) fn describe(&self) -> Vec<IrqInfo> {
        let vectors = u32::try_from(self.msix.len()).unwrap_or(u32::MAX);
        (0..VFIO_PCI_NUM_IRQS)
            .map(|index| {
                let (count, flags) = match index {
                    VFIO_PCI_INTX_IRQ_INDEX => {
                        (1, VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED)
                    }
                    VFIO_PCI_MSIX_IRQ_INDEX => (vectors, VFIO_IRQ_INFO_NORESIZE),
                    // There is no MSI capability; errors and requests have no interrupt.
                    _ => (0, 0),
                };
                IrqInfo { index, flags: flags | VFIO_IRQ_INFO_EVENTFD, count }
            })
            .collect()
    }

    /// Signals the vector of a completion queue. Without MSI-X, every vector is the pin, which
    /// `mask` (INTMS) can hold back. Returns false if neither has an eventfd.
    pub(crate) fn raise(&mut self, vector: u16, mask: u32) -> bool {
        let (line, held) = match self.msix.get_mut(usize::from(vector)) {
            Some(line) if line.event.is_some() => (line, false),
            _ => (&mut self.intx, mask & 1 != 0),
        };
        line.raise(held);
        line.event.is_some()
    }

    /// Signals a pending pin interrupt if `mask` (INTMS) no longer masks it.
    pub(crate) fn mask_changed(&mut self, mask: u32) {
        self.intx.retry(mask & 1 != 0);
    }

    /// Closes every descriptor.
    pub(crate) fn clear(&mut self) {
        self.intx = Line::default();
        self.msix.iter_mut().for_each(|line| *line = Line::default());
    }

    /// Executes `VFIO_USER_DEVICE_SET_IRQS`.
    ///
    /// # Errors
    /// `EINVAL` for an index, a range or a number of descriptors that do not fit; `EOPNOTSUPP` for
    /// booleans and for eventfds that mask.
    pub(crate) fn set(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        events: Vec<File>,
    ) -> io::Result<()> {
        let invalid = || io::Error::from(Errno::INVAL);
        let lines = match index {
            VFIO_PCI_INTX_IRQ_INDEX => std::slice::from_mut(&mut self.intx),
            VFIO_PCI_MSIX_IRQ_INDEX => &mut self.msix[..],
            _ => return Err(invalid()),
        };
        let data = flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
        let action = flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
        // A trigger of no interrupt without data disables the index.
        if (data, action, count) == (VFIO_IRQ_SET_DATA_NONE, VFIO_IRQ_SET_ACTION_TRIGGER, 0) {
            lines.iter_mut().for_each(|line| *line = Line::default());
            return Ok(());
        }
        let first = usize::try_from(start).map_err(|_| invalid())?;
        let count = usize::try_from(count).map_err(|_| invalid())?;
        let end = first.checked_add(count).ok_or_else(invalid)?;
        let lines = lines.get_mut(first..end).ok_or_else(invalid)?;
        match (data, action) {
            (VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_ACTION_TRIGGER) => {
                // A descriptor for each interrupt, or none, which closes the present ones.
                if !events.is_empty() && events.len() != lines.len() {
                    return Err(invalid());
                }
                let mut events = events.into_iter();
                for line in lines {
                    *line = Line { event: events.next(), ..Line::default() };
                }
            }
            (VFIO_IRQ_SET_DATA_NONE, VFIO_IRQ_SET_ACTION_TRIGGER) => {
                lines.iter_mut().for_each(|line| line.raise(false));
            }
            (VFIO_IRQ_SET_DATA_NONE, VFIO_IRQ_SET_ACTION_MASK) => {
                lines.iter_mut().for_each(|line| line.masked = true);
            }
            (VFIO_IRQ_SET_DATA_NONE, VFIO_IRQ_SET_ACTION_UNMASK) => {
                for line in lines {
                    line.masked = false;
                    line.retry(false);
                }
            }
            _ => return Err(Errno::OPNOTSUPP.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use std::io::Read;

    const EVENTFD: u32 = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;

    fn event() -> (File, File) {
        let event = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        (event.try_clone().unwrap(), event)
    }

    fn count(mut event: &File) -> u64 {
        let mut bytes = [0; 8];
        event.read_exact(&mut bytes).map_or(0, |()| u64::from_ne_bytes(bytes))
    }

    #[test]
    fn vectors_signal_their_own_descriptor_and_masks_hold_them_back() {
        let mut interrupts = Interrupts::new(4);
        let (first, first_sent) = event();
        let (second, second_sent) = event();
        interrupts.set(2, EVENTFD, 1, 2, vec![first_sent, second_sent]).unwrap();
        interrupts.raise(1, !0);
        interrupts.raise(3, 0);
        assert_eq!((count(&first), count(&second)), (1, 0));
        let none = VFIO_IRQ_SET_DATA_NONE;
        interrupts.set(2, none | VFIO_IRQ_SET_ACTION_MASK, 2, 1, vec![]).unwrap();
        interrupts.raise(2, 0);
        assert_eq!(count(&second), 0);
        interrupts.set(2, none | VFIO_IRQ_SET_ACTION_UNMASK, 2, 1, vec![]).unwrap();
        assert_eq!(count(&second), 1);
        interrupts.set(2, none | VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0, vec![]).unwrap();
        interrupts.raise(1, 0);
        assert_eq!(count(&first), 0);
    }

    #[test]
    fn the_pin_stands_in_for_vectors_and_obeys_the_mask() {
        let mut interrupts = Interrupts::new(4);
        let (pin, sent) = event();
        interrupts.set(0, EVENTFD, 0, 1, vec![sent]).unwrap();
        interrupts.raise(3, 0);
        assert_eq!(count(&pin), 1);
        interrupts.raise(0, 1);
        assert_eq!(count(&pin), 0);
        interrupts.mask_changed(0);
        assert_eq!(count(&pin), 1);
        interrupts.mask_changed(0);
        assert_eq!(count(&pin), 0);
    }

    #[test]
    fn a_descriptor_that_would_block_is_not_waited_for() {
        let mut interrupts = Interrupts::new(1);
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let writer = File::from(std::os::fd::OwnedFd::from(writer));
        interrupts.set(2, EVENTFD, 0, 1, vec![writer]).unwrap();
        for _ in 0..100_000 {
            interrupts.raise(0, 0);
        }
        drop(reader);
        interrupts.raise(0, 0);
    }

    #[test]
    fn ranges_that_do_not_fit_are_refused() {
        let mut interrupts = Interrupts::new(4);
        let (_, sent) = event();
        assert!(interrupts.set(2, EVENTFD, 0, 2, vec![sent.try_clone().unwrap()]).is_err());
        assert!(interrupts.set(2, EVENTFD, 4, 1, vec![sent.try_clone().unwrap()]).is_err());
        assert!(interrupts.set(2, EVENTFD, u32::MAX, u32::MAX, vec![]).is_err());
        assert!(interrupts.set(1, EVENTFD, 0, 1, vec![sent]).is_err());
        assert!(interrupts.set(7, EVENTFD, 0, 0, vec![]).is_err());
        assert!(interrupts.set(2, 0xff, 0, 1, vec![]).is_err());
    }
}
