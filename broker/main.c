/* main.c: bellhopd, the broker. */
#include "base/log.h"
#include "broker/broker.h"

int main(int argc, char **argv) {
    struct config config;
    int code = 0;
    switch (config_read(&config, argc, argv)) {
    case CONFIG_RUN:
        log_set_level((enum log_level)log_level_from_name(config.log));
        code = broker_run(&config);
        break;
    case CONFIG_DONE: break;
    case CONFIG_BAD: code = 2; break;
    }
    config_free(&config);
    return code;
}
