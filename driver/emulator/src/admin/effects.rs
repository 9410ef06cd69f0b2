//! Supported log pages and features, and the scope of commands.

use nvio_spec::opcode::admin;
use nvio_spec::{
    CommandEffects, FeatureEffects, NSID_ALL, SupportedLogPages, feature_id, log_id, scope,
};
use zerocopy::FromZeros;
use zerocopy::little_endian::U32;

use crate::admin::features::Features;
use crate::controller::state::Controller;

impl Controller {
    /// Returns Supported Log Pages (Base 5.16.1.1): the pages that Get Log Page returns.
    pub(crate) fn supported_log_pages(&self) -> SupportedLogPages {
        let mut page = SupportedLogPages::new_zeroed();
        let given =
            |id: u8| id == log_id::SUPPORTED_LOG_PAGES || self.log_page(id, NSID_ALL).is_ok();
        for (id, entry) in (0..=u8::MAX).zip(&mut page.page) {
            *entry = U32::new(given(id).into());
        }
        page
    }
}

impl Features {
    /// Returns Feature Identifiers Supported and Effects (Base 5.16.1.18). No feature changes user
    /// data or the capabilities of the controller.
    pub(crate) fn effects(&self) -> FeatureEffects {
        let mut page = FeatureEffects::new_zeroed();
        let cache = self.has_write_cache().then_some(feature_id::VOLATILE_WRITE_CACHE);
        let of_the_controller = [
            feature_id::ARBITRATION,
            feature_id::POWER_MANAGEMENT,
            feature_id::TEMPERATURE_THRESHOLD,
            feature_id::NUMBER_OF_QUEUES,
            feature_id::INTERRUPT_COALESCING,
            feature_id::INTERRUPT_VECTOR_CONFIGURATION,
            feature_id::WRITE_ATOMICITY_NORMAL,
            feature_id::ASYNC_EVENT_CONFIGURATION,
            feature_id::KEEP_ALIVE_TIMER,
            feature_id::HOST_BEHAVIOR_SUPPORT,
        ];
        for id in of_the_controller.into_iter().chain(cache) {
            let entry = FeatureEffects::SUPPORTED | scope::CONTROLLER;
            page.feature[usize::from(id)] = U32::new(entry);
        }
        let entry = FeatureEffects::SUPPORTED | scope::NAMESPACE;
        page.feature[usize::from(feature_id::ERROR_RECOVERY)] = U32::new(entry);
        page
    }
}

/// Adds the scope of each supported command.
pub(crate) fn add_scopes(page: &mut CommandEffects) {
    let add = |entry: &mut U32, scope: u32| {
        if entry.get() & CommandEffects::SUPPORTED != 0 {
            *entry = U32::new(entry.get() | scope);
        }
    };
    for (opcode, entry) in (0..=u8::MAX).zip(&mut page.admin) {
        let scope = match opcode {
            admin::FORMAT_NVM => scope::NAMESPACE,
            admin::NAMESPACE_MANAGEMENT | admin::NAMESPACE_ATTACHMENT => scope::SUBSYSTEM,
            _ => scope::CONTROLLER,
        };
        add(entry, scope);
    }
    page.io.iter_mut().for_each(|entry| add(entry, scope::NAMESPACE));
}
