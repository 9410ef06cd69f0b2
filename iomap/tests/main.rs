//! Integration tests of nvio-iomap, in one program: a program for each file would be linked apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod changing_buffer;
mod disk_reader;
mod extents;
mod image_queue;
mod protected_files;
mod protection;
