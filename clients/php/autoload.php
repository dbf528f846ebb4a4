<?php

declare(strict_types=1);

// ssa for PHP without Composer: require this file. docs/php.md tells how to use it.

spl_autoload_register(static function (string $class): void {
    $path = __DIR__ . '/src/' . substr($class, 4) . '.php';
    if (str_starts_with($class, 'Ssa\\') && is_file($path)) {
        require $path;
    }
});
require __DIR__ . '/src/register.php';
