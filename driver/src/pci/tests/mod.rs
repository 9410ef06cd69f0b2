mod bind;
mod usage;
