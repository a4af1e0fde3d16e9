#!/bin/bash
# DevStack calls this script in each phase, for example "stack install".

NOVA_ARM_EXT_DIR=${NOVA_ARM_EXT_DIR:-$DEST/nova-arm-ext}

if is_service_enabled n-cpu; then
    case "$1 $2" in
        "stack install")
            # firmware for AArch64 and for 32-bit instances
            install_package qemu-efi-aarch64 qemu-efi-arm
            setup_develop "$NOVA_ARM_EXT_DIR"
            ;;
        "stack post-config")
            # DevStack copies it to nova-cpu.conf later
            iniset "$NOVA_CONF" DEFAULT compute_driver "$NOVA_ARM_EXT_DRIVER"
            ;;
        "stack test-config")
            nova-arm-ext doctor --config-file "$NOVA_CPU_CONF" || true
            ;;
    esac
fi
if is_service_enabled n-api && [[ "$1 $2" == "stack install" ]]; then
    # the API then knows the extra specs
    setup_develop "$NOVA_ARM_EXT_DIR"
fi
