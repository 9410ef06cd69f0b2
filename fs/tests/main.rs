//! Integration tests of nvio-ext4, in one program: a program for each file would be linked apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod async_file;
mod common;
mod controller;
mod corpus;
mod damage;
mod damaged_trees;
mod directories;
mod directory_sizes;
mod encrypted;
mod fast_commit;
#[allow(dead_code, reason = "the fuzz targets and the suite damage use the rest")]
mod hostile;
mod inline_data;
mod inodes;
mod journal;
mod journal_by_hand;
mod journaled;
mod mke2fs;
mod orphans;
mod overwrite;
mod read_ahead;
mod rescue;
mod walk;
mod xattr;
