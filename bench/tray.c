/* The least program that puts a picture into the tray: what every program with GTK has to do before its tray item is seen.
 * tray FOLDER: shows FOLDER/idle-22.png until it is ended. */
#include <gtk/gtk.h>
#include <libayatana-appindicator/app-indicator.h>

int main(int argc, char **argv) {
    gtk_init(&argc, &argv);
    AppIndicator *item = app_indicator_new_with_path("floor", "idle-22", APP_INDICATOR_CATEGORY_APPLICATION_STATUS, argv[1]);
    GtkWidget *menu = gtk_menu_new();
    gtk_menu_shell_append(GTK_MENU_SHELL(menu), gtk_menu_item_new_with_label("Quit"));
    gtk_widget_show_all(menu);
    app_indicator_set_menu(item, GTK_MENU(menu));
    app_indicator_set_status(item, APP_INDICATOR_STATUS_ACTIVE);
    gtk_main();
    return 0;
}
