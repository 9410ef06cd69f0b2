//! The supported commands, with their effects and scopes (Base 5.16.1.6).

use nvio_spec::opcode::{admin, nvm};
use nvio_spec::{CommandEffects, scope};
use zerocopy::FromZeros;
use zerocopy::little_endian::U32;

use crate::controller::state::Controller;

/// Admin commands, with their effects and their scope. A controller may lack some; see
/// [`Controller::has_admin_command`].
const ADMIN: [(u8, u32); 15] = [
    (admin::DELETE_IO_SQ, scope::CONTROLLER),
    (admin::CREATE_IO_SQ, scope::CONTROLLER),
    (admin::GET_LOG_PAGE, scope::CONTROLLER),
    (admin::DELETE_IO_CQ, scope::CONTROLLER),
    (admin::CREATE_IO_CQ, scope::CONTROLLER),
    (admin::IDENTIFY, scope::CONTROLLER),
    (admin::ABORT, scope::CONTROLLER),
    (admin::SET_FEATURES, scope::CONTROLLER),
    (admin::GET_FEATURES, scope::CONTROLLER),
    (admin::ASYNC_EVENT_REQUEST, scope::CONTROLLER),
    (admin::KEEP_ALIVE, scope::CONTROLLER),
    (admin::DOORBELL_BUFFER_CONFIG, scope::CONTROLLER),
    (admin::FORMAT_NVM, scope::NAMESPACE | CONTENT | CommandEffects::CHANGES_NAMESPACE),
    (admin::NAMESPACE_MANAGEMENT, scope::SUBSYSTEM | CommandEffects::CHANGES_INVENTORY),
    (admin::NAMESPACE_ATTACHMENT, scope::SUBSYSTEM | CommandEffects::CHANGES_INVENTORY),
];

/// I/O commands, with their effects. Their scope is the namespace.
const IO: [(u8, u32); 8] = [
    (nvm::FLUSH, 0),
    (nvm::READ, 0),
    (nvm::COMPARE, 0),
    (nvm::VERIFY, 0),
    (nvm::WRITE, CONTENT),
    (nvm::WRITE_ZEROES, CONTENT),
    (nvm::DATASET_MANAGEMENT, CONTENT),
    (nvm::COPY, CONTENT),
];

const CONTENT: u32 = CommandEffects::CHANGES_CONTENT;

impl Controller {
    /// Returns true if the controller has an admin command.
    pub(crate) fn has_admin_command(&self, opcode: u8) -> bool {
        match opcode {
            admin::DOORBELL_BUFFER_CONFIG => self.config.shadow_doorbells,
            admin::FORMAT_NVM => self.config.format_nvm,
            admin::NAMESPACE_MANAGEMENT | admin::NAMESPACE_ATTACHMENT => {
                self.media.namespaces.can_be_managed()
            }
            _ => ADMIN.iter().any(|(known, _)| *known == opcode),
        }
    }

    /// Returns Commands Supported and Effects.
    pub(crate) fn command_effects(&self) -> CommandEffects {
        let mut page = CommandEffects::new_zeroed();
        for (opcode, effects) in ADMIN.iter().filter(|(opcode, _)| self.has_admin_command(*opcode))
        {
            page.admin[usize::from(*opcode)] = U32::new(CommandEffects::SUPPORTED | effects);
        }
        for (opcode, effects) in IO {
            let entry = CommandEffects::SUPPORTED | scope::NAMESPACE | effects;
            page.io[usize::from(opcode)] = U32::new(entry);
        }
        page
    }
}
