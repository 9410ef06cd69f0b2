//! nvio-ext4
