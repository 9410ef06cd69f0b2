//! Integration tests of nvio-driver, in one program: a program for each file would be linked apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod controller_memory;
mod corpus;
mod hostile;
mod interrupts;
