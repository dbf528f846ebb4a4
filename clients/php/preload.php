<?php

declare(strict_types=1);

// For php.ini's opcache.preload: with `ffi.enable = preload` the code here may use FFI, and no other.

foreach (['Tables', 'SsaException', 'Library', 'Options', 'Address', 'Plain', 'Connection', 'Listener', 'StreamWrapper'] as $class) {
    require_once __DIR__ . "/src/$class.php";
}
